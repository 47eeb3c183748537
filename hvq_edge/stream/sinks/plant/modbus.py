"""A coil of a controller over Modbus/TCP."""

from __future__ import annotations

import logging

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from hvq_edge.errors import OutputError
from hvq_edge.stream.sinks.plant.level_output import ControllerRefused
from hvq_edge.verdict.decision import Decision

# What it has to say is in the errors; it would say it again on standard error.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


class ModbusController:
    """Writes coils: one for reject, one that changes while the inspector lives.

    Args:
        host: of the controller.
        port: of the controller.
        unit: device behind it, 1 where there is but one.
        reject_coil: address, from 0.
        heartbeat_coil: address, from 0; ``None``: no heartbeat.
        timeout_seconds: for the connection and each answer.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        unit: int = 1,
        reject_coil: int = 0,
        heartbeat_coil: int | None = None,
        timeout_seconds: float = 1.0,
    ) -> None:
        self._where = f"{host}:{port}"
        self._unit = unit
        self._reject_coil = reject_coil
        self._heartbeat_coil = heartbeat_coil
        self._client = ModbusTcpClient(host, port=port, timeout=timeout_seconds, retries=0)

    def set_reject(self, on: bool) -> None:
        """Write the reject coil.

        Raises:
            ControllerRefused: the controller refuses.
            OutputError: it cannot be reached.
        """
        self._write(self._reject_coil, on)

    def set_decision(self, decision: Decision) -> None:
        """A coil holds no more than the reject."""

    def beat(self, on: bool) -> None:
        """Write the heartbeat coil.

        Raises:
            ControllerRefused: the controller refuses.
            OutputError: it cannot be reached.
        """
        if self._heartbeat_coil is not None:
            self._write(self._heartbeat_coil, on)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _write(self, coil: int, on: bool) -> None:
        try:
            if not self._client.connected and not self._client.connect():
                raise OutputError(f"the Modbus controller {self._where} cannot be reached.")
            answer = self._client.write_coil(coil, on, device_id=self._unit)
        except (ModbusException, OSError) as error:
            self._client.close()
            raise OutputError(
                f"the Modbus controller {self._where} does not answer: {error}"
            ) from error
        if answer.isError():
            raise ControllerRefused(
                f"the Modbus controller {self._where} refused to set coil {coil}: {answer}",
                next_step="check the coil's address and the unit",
            )
