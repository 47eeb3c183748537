"""Take decisions from an MQTT broker and set a controller's coils over Modbus/TCP.

    python examples/plc/mqtt_to_plc.py --broker 127.0.0.1:1883 --plc 127.0.0.1:5020

Coil 0 is on while the newest part is a reject; a frame without a decision changes nothing. Coil 1
is on while the inspector lives: where it dies, the broker says so (its last will), and both go off.
So they do where the broker is lost or this program ends. One that is killed says nothing more, and
leaves both as they are: so coil 1 is written again every second, and the controller sets both off
where that stays away. What waited for a controller or a broker that was away is written afterwards,
one by one. For lines that have a broker anyway; without one, `[sinks.modbus]` writes the coils
itself, and the newest decision alone.
"""

import argparse
import json
import signal
import time
from contextlib import suppress

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

BEAT_SECONDS = 1.0
KEEPALIVE_SECONDS = 10
"""A broker that says nothing for longer is lost."""
REJECT, ALIVE = 0, 1
OFF = {REJECT: False, ALIVE: False}
COILS: dict[str, dict[int, bool]] = {
    "reject": {REJECT: True},
    "pass": {REJECT: False},
    "no_decision": {},
}


def coils_for(topic: str, payload: str) -> dict[int, bool]:
    """Return which coils a message sets."""
    if topic.endswith("/availability"):
        return {ALIVE: True} if payload == "online" else OFF
    return COILS[json.loads(payload)["verdict"]]


def address(text: str) -> tuple[str, int]:
    """Read host:port."""
    host, port = text.rsplit(":", 1)
    return host, int(port)


def main() -> None:
    """Pass on until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    local = {"type": address, "metavar": "HOST:PORT"}
    parser.add_argument("--broker", default="127.0.0.1:1883", help="the broker", **local)
    parser.add_argument("--plc", default="127.0.0.1:5020", help="the controller", **local)
    parser.add_argument("--line", default="line-1", help="as in [sinks.mqtt] (default: line-1)")
    arguments = parser.parse_args()
    plc = ModbusTcpClient(arguments.plc[0], port=arguments.plc[1], timeout=1)
    if not plc.connect():
        raise SystemExit(f"no controller answers at {':'.join(map(str, arguments.plc))}")
    wanted = dict(OFF)
    said = ""

    def write(coils: dict[int, bool]) -> None:
        nonlocal said
        wanted.update(coils)
        fault = ""
        # A controller that was away hears with the next beat that the inspector lives.
        for coil, on in {**coils, ALIVE: wanted[ALIVE]}.items():
            try:
                answer = plc.write_coil(coil, on)
                if answer.isError():
                    fault = f"the controller did not take coil {coil}: {answer}"
            except (ModbusException, OSError) as error:
                plc.close()  # the next write connects anew
                fault = f"the controller did not take coil {coil}: {error}"
        if fault and fault != said:  # else every second
            print(fault, flush=True)
        said = fault

    def passed_on(_client: Client, _data: object, message: MQTTMessage) -> None:
        try:
            coils = coils_for(message.topic, message.payload.decode())
        except (ValueError, KeyError, TypeError, RecursionError):
            print(f"no decision, left out: {message.topic}", flush=True)
        else:
            write(coils)

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = passed_on
    client.on_connect = lambda *_: client.subscribe(f"hvq-edge/{arguments.line}/#", qos=1)
    client.on_subscribe = lambda *_: print(f"Listening to {arguments.line}", flush=True)
    client.on_disconnect = lambda *_: write(OFF)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        write(OFF)
        client.connect(*arguments.broker, keepalive=KEEPALIVE_SECONDS)
        while True:  # one thread: what hears nothing more does not beat either
            if client.loop(BEAT_SECONDS) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                time.sleep(BEAT_SECONDS)
                with suppress(OSError):
                    client.reconnect()
            write({})
    except OSError as error:
        broker = ":".join(map(str, arguments.broker))
        raise SystemExit(f"no broker answers at {broker}: {error}") from None
    except KeyboardInterrupt:
        pass
    finally:
        write(OFF)
        plc.close()


if __name__ == "__main__":
    main()
