"""Sinks for the plant's controllers: the reject signal over Modbus/TCP, OPC UA and GPIO."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from helpers.decisions import made
from helpers.patience import PATIENCE_SECONDS, until
from helpers.receivers import free_port

from hvq_edge.errors import MissingCapability, OutputError
from hvq_edge.stream.capture.part_node import PartNode
from hvq_edge.stream.sinks import threads
from hvq_edge.stream.sinks.plant import reject_signal
from hvq_edge.stream.sinks.plant.gpio import GpioController
from hvq_edge.stream.sinks.plant.level_output import LevelOutput
from hvq_edge.stream.sinks.plant.modbus import ModbusController
from hvq_edge.stream.sinks.plant.opcua import OpcUaController, OpcUaServer
from hvq_edge.stream.sinks.plant.reject_signal import RejectSignal
from hvq_edge.stream.sinks.sink_settings import OpcUaSettings
from hvq_edge.stream.sinks.threads import SinkThread
from hvq_edge.stream.sources.http_trigger import HttpTrigger


class Server:
    """An asyncio server on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_SECONDS)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture
def retried_soon(monkeypatch):
    monkeypatch.setattr(threads, "RETRY_SECONDS", 0.02)


class Coils:
    """A pymodbus server that remembers what was written."""

    def __init__(self, server: Server, port: int) -> None:
        self._server, self._port = server, port
        self.written: list[tuple[int, bool]] = []
        self.start()

    def start(self) -> None:
        from pymodbus.datastore import (
            ModbusDeviceContext,
            ModbusSequentialDataBlock,
            ModbusServerContext,
        )
        from pymodbus.pdu.bit_message import WriteSingleCoilRequest
        from pymodbus.server import ModbusTcpServer

        def note(sending, pdu):
            if not sending and isinstance(pdu, WriteSingleCoilRequest):
                self.written.append((pdu.address, bool(pdu.bits[0])))
            return pdu

        async def begin():
            device = ModbusDeviceContext(co=ModbusSequentialDataBlock(1, [False] * 16))
            self._running = ModbusTcpServer(
                ModbusServerContext(devices=device, single=True),
                address=("127.0.0.1", self._port),
                trace_pdu=note,
            )
            await self._running.serve_forever(background=True)

        self._server.do(begin())

    def stop(self) -> None:
        self._server.do(self._running.shutdown())

    def of(self, coil: int) -> list[bool]:
        return [on for address, on in self.written if address == coil]


def test_modbus_sets_the_coil_and_beats_over_a_restart(server, retried_soon):
    coils = Coils(server, free_port())
    controller = ModbusController("127.0.0.1", coils._port, reject_coil=3, heartbeat_coil=4)
    faults = []
    output = LevelOutput(controller, RejectSignal(None), heartbeat_seconds=0.02)
    thread = SinkThread(output, "modbus", "newest", 1, report=lambda *said: faults.append(said))
    thread.write(*made(0, "pass"))
    until(lambda: coils.of(3) == [False])
    thread.write(*made(1, "reject"))
    until(lambda: coils.of(3) == [False, True])
    until(lambda: len(coils.of(4)) > 3)
    assert coils.of(4)[:4] == [True, False, True, False]
    coils.stop()
    until(lambda: bool(thread.statistics().fault))
    coils.written.clear()
    coils.start()
    until(lambda: coils.of(3) == [True], 10)  # told again, without a new decision
    until(lambda: not thread.statistics().fault)
    thread.close(5.0)
    assert coils.of(3) == [True, False], "off at the end"
    assert len(faults) == 1
    coils.stop()


def test_modbus_refusals_are_named(server):
    coils = Coils(server, free_port())
    controller = ModbusController("127.0.0.1", coils._port, reject_coil=999)
    with pytest.raises(OutputError, match="refused to set coil 999"):
        controller.set_reject(True)
    controller.close()
    coils.stop()


class Nodes:
    """An asyncua server with four nodes."""

    def __init__(self, server: Server, port: int) -> None:
        self._server = server
        self.url = f"opc.tcp://127.0.0.1:{port}/"
        self.start()

    def start(self) -> None:
        from asyncua import Server as ServerOfNodes
        from asyncua import ua

        async def begin():
            self._running = ServerOfNodes()
            await self._running.init()
            self._running.set_endpoint(self.url)
            objects = self._running.nodes.objects
            self._nodes = {}
            starts = {"reject": False, "verdict": "", "score": 0.0, "beat": False, "count": 0}
            starts |= {"image": "", "part": "", "serial": "SN-1"}
            for name, value in starts.items():
                node = await objects.add_variable(f"ns=2;s={name}", name, value)
                await node.set_writable()
                self._nodes[name] = node
            real = ua.Variant(0.0, ua.VariantType.Float)  # what a controller calls REAL
            self._nodes["real"] = await objects.add_variable("ns=2;s=real", "real", real)
            await self._nodes["real"].set_writable()
            await self._running.start()

        self._server.do(begin())

    def restart(self) -> None:
        """Only what listens, which is quick: the address space takes seconds to load."""
        self._server.do(self._running.bserver.start())

    def __getitem__(self, name: str):
        return self._server.do(self._nodes[name].read_value())

    def __setitem__(self, name: str, value: object) -> None:
        self._server.do(self._nodes[name].write_value(value))

    def drop(self) -> None:
        self._server.do(self._running.bserver.stop())

    def stop(self) -> None:
        self._server.do(self._running.stop())


@pytest.fixture
def parts():
    with ExitStack() as closing:
        yield closing


def test_opc_ua_writes_nodes_over_a_restart(server, retried_soon, caplog, parts):
    nodes = Nodes(server, free_port())
    server_of = OpcUaServer(nodes.url, timeout_seconds=1.0)
    controller = OpcUaController(
        server_of,
        reject_node="ns=2;s=reject",
        verdict_node="ns=2;s=verdict",
        score_node="ns=2;s=score",
        image_node="ns=2;s=image",
        part_node="ns=2;s=part",
        heartbeat_node="ns=2;s=beat",
    )
    next_part = parts.enter_context(numbered(nodes.url, "ns=2;s=serial"))
    assert next_part() == "SN-1"
    thread = SinkThread(LevelOutput(controller, RejectSignal(None), 0.05), "opcua", "newest", 1)
    decision, frame = made(0, "reject", "a.png")
    thread.write(replace(decision, part="SN-1"), frame)
    until(lambda: nodes["part"] == "SN-1")
    assert (nodes["reject"], nodes["verdict"]) == (True, "reject")
    assert (nodes["score"], nodes["image"]) == (6.0, "a.png")
    until(lambda: nodes["beat"])
    nodes.drop()
    until(lambda: bool(thread.statistics().fault))
    nodes.restart()
    until(lambda: not thread.statistics().fault)
    thread.write(*made(1, "pass"))
    until(lambda: nodes["verdict"] == "pass")
    until(lambda: not nodes["reject"])
    thread.close(5.0)
    assert (nodes["image"], nodes["part"]) == ("", "")
    nodes["serial"] = "SN-2"
    assert [next_part(), next_part("the trigger's"), next_part()] == [
        "SN-2",
        "the trigger's",
        "SN-2",
    ], "over the restart as well"
    next_part = parts.enter_context(numbered(nodes.url, "ns=2;s=score"))
    assert next_part() == ""
    assert "it holds a float, and neither a text nor a whole number" in caplog.text

    # Other nodes of the same server, which takes seconds to start. A score fits into a REAL:
    controller = OpcUaController(server_of, reject_node="ns=2;s=reject", score_node="ns=2;s=real")
    controller.set_decision(made(0, "reject")[0])
    assert nodes["real"] == 6.0
    controller.close()
    # What is refused is named with its type, and keeps neither another value nor the end from it:
    controller = OpcUaController(
        server_of,
        reject_node="ns=2;s=reject",
        verdict_node="ns=2;s=count",
        score_node="ns=2;s=score",
    )
    output = LevelOutput(controller, RejectSignal(None))
    decision, frame = made(0, "reject")
    output.see(decision)
    with pytest.raises(OutputError, match="String for the node ns=2;s=count: it is of type Int64"):
        output.write(decision, frame)
    assert (nodes["reject"], nodes["score"]) == (True, 6.0)
    output.close()
    assert nodes["reject"] is False, "off at the end"
    nodes.stop()


@contextmanager
def numbered(url: str, node: str) -> Iterator[Callable[..., str]]:
    """A trigger whose parts' numbers a node holds; gives what asks it for the next part's."""
    settings = OpcUaSettings(url=url, reject_node="ns=2;s=reject", timeout_seconds=1.0)
    trigger = HttpTrigger(0, "camera", seconds=0)
    source = PartNode(trigger, settings, node)

    def next_part(given: str = "") -> str:
        trigger.request(given)
        assert source.wait(1)
        return source.part()

    yield next_part
    source.close()
    source.close()


def test_opc_ua_that_is_not_there_is_said_and_leaves_no_thread(caplog):
    before = {*threading.enumerate()}
    nowhere = OpcUaServer(f"opc.tcp://127.0.0.1:{free_port()}/", timeout_seconds=0.5)
    controller = OpcUaController(nowhere, reject_node="ns=2;s=a")
    with pytest.raises(OutputError, match="OPC UA server"):
        controller.set_reject(True)
    controller.close()
    with numbered(nowhere.url, "ns=2;s=a") as next_part:
        assert [next_part(), next_part(), next_part("SN-1")] == ["", "", "SN-1"]
    assert len(caplog.messages) == 1, caplog.messages
    until(lambda: {*threading.enumerate()} <= before)
    assert {*threading.enumerate()} <= before


def test_gpio_without_a_chip_is_a_missing_capability(tmp_path):
    with pytest.raises(MissingCapability, match="no GPIO chip"):
        GpioController(str(tmp_path / "gpiochip0"), 5)
    (tmp_path / "gpiochip1").touch()
    with pytest.raises(MissingCapability, match="cannot be used"):
        GpioController(str(tmp_path / "gpiochip1"), 5)


def test_gpio_pulses_on_a_reject(tmp_path, monkeypatch):
    import gpiod
    from gpiod.line import Direction, Value

    told = []

    class Request:
        def set_value(self, line, value):
            told.append((line, value, time.monotonic()))

        def release(self):
            told.append("released")

    def request_lines(path, consumer, config):
        ((line, settings),) = config.items()
        assert (path, line) == (str(chip), "EJECT")
        assert (settings.direction, settings.active_low) == (Direction.OUTPUT, True)
        assert settings.output_value == Value.INACTIVE
        return Request()

    chip = tmp_path / "gpiochip0"
    chip.touch()
    monkeypatch.setattr(gpiod, "request_lines", request_lines)
    monkeypatch.setattr(reject_signal, "LATE_SECONDS", PATIENCE_SECONDS)  # on a busy machine
    controller = GpioController(str(chip), "EJECT", active_low=True)
    thread = SinkThread(LevelOutput(controller, RejectSignal(0.05)), "gpio", "newest", 1)
    thread.write(*made(0, "reject"))
    until(lambda: [value for _, value, _ in told][-2:] == [Value.ACTIVE, Value.INACTIVE])
    assert told[-1][2] - told[-2][2] >= 0.05
    thread.close()
    assert told[-1] == "released"
