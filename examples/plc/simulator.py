"""A controller of a line, simulated: it says when its coils change and counts what it ejects.

    python examples/plc/simulator.py --port 5020

Coil 0 is the ejector, coil 1 says that the inspector is alive. When it dies, the line stops: coil 1
is set off, or is not written for five seconds, and then the controller sets both off itself.
Needs `pip install 'pymodbus>=3.13'`.
"""

import argparse
import asyncio
import time
from contextlib import suppress

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

SILENT_SECONDS = 5.0
EJECTOR, ALIVE = 0, 1
NAMES = {EJECTOR: "ejector", ALIVE: "inspector alive"}


class Line:
    """What the coils do on the machine."""

    def __init__(self) -> None:
        self.coils = dict.fromkeys(NAMES, False)
        self.ejected = 0
        self.heard = 0.0

    async def asked(
        self,
        _code: int,
        _start: int,
        coil: int,
        _count: int,
        _now: list[int],
        new: list[bool] | None,
    ) -> None:
        """Look at what a request writes."""
        for at, on in enumerate(new or (), start=coil):
            if at in NAMES:
                self.set(at, on=bool(on))

    def set(self, coil: int, *, on: bool) -> None:
        """Take a coil's new level; the ejector moves at each part that it is set for."""
        if coil == ALIVE:
            self.heard = time.monotonic()
        if self.coils[coil] == on and not (coil == EJECTOR and on):
            return
        self.coils[coil] = on
        self.ejected += coil == EJECTOR and on
        said = f"coil {coil} ({NAMES[coil]}) {'on' if on else 'off'}"
        if coil == ALIVE:
            said += ": the line runs" if on else ": the line stops"
        print(f"{said}, {self.ejected} ejected", flush=True)

    async def watch(self) -> None:
        """Set all off where nobody says any more that the inspector is alive."""
        while True:
            await asyncio.sleep(SILENT_SECONDS / 10)
            if self.coils[ALIVE] and time.monotonic() - self.heard > SILENT_SECONDS:
                for coil in NAMES:
                    self.set(coil, on=False)


async def serve(port: int) -> None:
    """Answer Modbus/TCP until the process ends."""
    coils = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    line = Line()
    device = SimDevice(1, simdata=(coils, coils, coils, coils), action=line.asked)
    server = ModbusTcpServer(device, address=("127.0.0.1", port))
    try:
        await server.serve_forever(background=True)
    except RuntimeError:
        raise SystemExit(f"port {port} is taken: choose another with --port") from None
    print(f"Controller on port {port}, coils 0 and 1", flush=True)
    await line.watch()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=5020, help="to listen on (default: 5020)")
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
