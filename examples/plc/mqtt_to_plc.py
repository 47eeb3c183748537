"""Take decisions from an MQTT broker and set a controller's coils over Modbus/TCP.

    python examples/plc/mqtt_to_plc.py --broker 127.0.0.1:1883 --plc 127.0.0.1:5020

Coil 0 is on while the newest part is a reject; a frame without a decision changes nothing. Coil 1
is on while the inspector lives: where it dies, the broker says so (its last will), and both go off.
For lines that have a broker anyway; without one, `[sinks.modbus]` writes the coils itself.
"""

import argparse
import json

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import ModbusTcpClient

REJECT, ALIVE = 0, 1


def coils_for(topic: str, payload: str) -> dict[int, bool]:
    """Return which coils a message sets."""
    if topic.endswith("/availability"):
        return {ALIVE: True} if payload == "online" else {REJECT: False, ALIVE: False}
    verdict = json.loads(payload)["verdict"]
    return {} if verdict == "no_decision" else {REJECT: verdict == "reject"}


def main() -> None:
    """Pass on until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--broker", default="127.0.0.1:1883", help="host:port of the broker")
    parser.add_argument("--plc", default="127.0.0.1:5020", help="host:port of the controller")
    parser.add_argument("--line", default="line-1", help="as in [sinks.mqtt] (default: line-1)")
    arguments = parser.parse_args()
    plc_host, plc_port = arguments.plc.rsplit(":", 1)
    plc = ModbusTcpClient(plc_host, port=int(plc_port), timeout=1)
    if not plc.connect():
        raise SystemExit(f"no controller answers at {arguments.plc}")

    def passed_on(_client: Client, _data: object, message: MQTTMessage) -> None:
        for coil, on in coils_for(message.topic, message.payload.decode()).items():
            answer = plc.write_coil(coil, on)
            if answer.isError():
                print(f"the controller refused coil {coil}: {answer}", flush=True)

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = passed_on
    client.on_connect = lambda *_: client.subscribe(f"hvq-edge/{arguments.line}/#", qos=1)
    client.on_subscribe = lambda *_: print(f"Listening to {arguments.line}", flush=True)
    host, port = arguments.broker.rsplit(":", 1)
    try:
        client.connect(host, int(port))
        client.loop_forever()
    except OSError as error:
        raise SystemExit(f"no broker answers at {arguments.broker}: {error}") from None
    except KeyboardInterrupt:
        pass
    finally:
        plc.close()


if __name__ == "__main__":
    main()
