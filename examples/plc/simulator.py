"""A controller of a line, simulated: it says when its coils change and counts what it ejects.

    python examples/plc/simulator.py --port 5020

Coil 0 is the ejector, coil 1 says that the inspector is alive. When it dies, the line stops.
"""

import argparse
import asyncio
from contextlib import suppress

from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import WriteSingleCoilRequest
from pymodbus.server import ModbusTcpServer

EJECTOR, ALIVE = 0, 1
NAMES = {EJECTOR: "ejector", ALIVE: "inspector alive"}


class Line:
    """What the coils do on the machine."""

    def __init__(self) -> None:
        self.coils = dict.fromkeys(NAMES, False)
        self.ejected = 0

    def watch(self, sending: bool, pdu: ModbusPDU) -> ModbusPDU:
        """Look at what arrives, before the coil is set."""
        if not sending and isinstance(pdu, WriteSingleCoilRequest) and pdu.address in NAMES:
            self.set(pdu.address, on=bool(pdu.bits[0]))
        return pdu

    def set(self, coil: int, *, on: bool) -> None:
        """Take a coil's new level; only a change of it does anything."""
        if self.coils[coil] == on:
            return
        self.coils[coil] = on
        self.ejected += coil == EJECTOR and on
        said = f"coil {coil} ({NAMES[coil]}) {'on' if on else 'off'}"
        if coil == ALIVE:
            said += ": the line runs" if on else ": the line stops"
        print(f"{said}, {self.ejected} ejected", flush=True)


async def serve(port: int) -> None:
    """Answer Modbus/TCP until the process ends."""
    coils = ModbusSequentialDataBlock(1, [False] * 16)
    context = ModbusServerContext(devices=ModbusDeviceContext(co=coils), single=True)
    server = ModbusTcpServer(context, address=("127.0.0.1", port), trace_pdu=Line().watch)
    await server.serve_forever(background=True)
    print(f"Controller on port {port}, coils 0 and 1", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=5020, help="to listen on (default: 5020)")
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
