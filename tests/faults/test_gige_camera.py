"""An industrial camera that vanishes, comes back and loses packets: Aravis's own, on loopback."""

from __future__ import annotations

import time
from operator import le
from pathlib import Path

import numpy as np
import pytest
from helpers import gige_camera, system_gi
from helpers.gige_camera import GigeCamera
from helpers.patience import until
from helpers.running_line import LONGEST_STOP, RunningLine, frames_in_order, save_line_bundle

from hvq_edge.stream.sources.cameras import genicam
from hvq_edge.stream.sources.cameras.genicam import GenicamDevice, GenicamOptions, found_devices
from hvq_edge.stream.sources.cameras.opencv_capture import ANY_FORMAT

LACKS = gige_camera.missing() or system_gi.lacks("gir1.2-aravis-0.8", "Aravis", "0.8")
pytestmark = pytest.mark.skipif(bool(LACKS), reason=LACKS or "it is installed")
SERIAL = "HVQ17"
HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_line_bundle(tmp_path_factory.mktemp("gige") / "bundle")


def open_now() -> tuple[int, int]:
    """Threads and descriptors of this process."""
    own = Path("/proc/self")
    return len([*(own / "task").iterdir()]), len([*(own / "fd").iterdir()])


def metric(line: RunningLine, kind: str) -> float:
    (found,) = (
        one.rsplit(" ", 1)[1]
        for one in line.get("metrics")[1].splitlines()
        if one.startswith("hvq_camera_transport_faults_total{") and f'kind="{kind}"' in one
    )
    return float(found)


def test_a_camera_that_vanishes_is_a_gap_and_lost_packets_are_no_verdict(bundle, tmp_path):
    with GigeCamera(SERIAL, lost=1) as camera:
        arguments = ["--bundle", bundle.path, "--page-port", 0, "--policy", "all"]
        arguments += ["--camera", f"{camera.address}?silence=1&packet_size=1400"]
        with RunningLine(tmp_path, *arguments, environment=system_gi.ENVIRONMENT) as line:
            line.wait_for(5)
            until(lambda: metric(line, "incomplete") >= 1, "a packet is lost")
            camera.kill()
            until(lambda: "gave no image" in line.get("healthz")[1], "the page says it is lost")
            assert line.get("healthz")[0] == 503
            camera.start()
            before = len(line.decisions())
            until(
                lambda: sum(one["score"] is not None for one in line.decisions()[before:]) > 5,
                "it is back",
            )
            state = line.get("api/state")[1]
            assert line.stop() < LONGEST_STOP
    line.assert_it_fits()
    decisions = line.decisions()
    assert frames_in_order(decisions)
    assert {one["camera"] for one in decisions} == {camera.shown}
    parts = [one for one in decisions if "is incomplete" in (one["reason"] or "")]
    gone = [one for one in decisions if "gave no image" in (one["reason"] or "")]
    assert parts
    assert gone
    assert all(one["verdict"] == "no_decision" for one in parts + gone)
    assert all(one["score"] is None for one in parts + gone)
    told = line.events("transport")
    assert {one["camera"] for one in told} == {camera.shown}
    assert sum(one["incomplete"] for one in told) >= len(parts)
    assert "incomplete on the way" in line.said
    assert '"incomplete":' in state
    assert any(one["frame"] > gone[0]["frame"] and one["score"] is not None for one in decisions)


CHUNKS = """
<Boolean Name="ChunkModeActive">
  <Value>0</Value><OnValue>1</OnValue><OffValue>0</OffValue>
</Boolean>
<Enumeration Name="ChunkSelector">
  <EnumEntry Name="Timestamp"><Value>1</Value></EnumEntry><Value>1</Value>
</Enumeration>
<Boolean Name="ChunkEnable"><Value>0</Value><OnValue>1</OnValue><OffValue>0</OffValue></Boolean>
<Port Name="ChunkPort"><ChunkID>a0000001</ChunkID></Port>
<IntReg Name="ChunkTimestamp">
  <Address>0</Address><Length>8</Length><AccessMode>RO</AccessMode><pPort>ChunkPort</pPort>
</IntReg>
</RegisterDescription>"""


def description_of(device) -> str:
    """Read it from its registers: Aravis's own call gives bytes without an end to PyGObject."""

    def read(address: int, size: int) -> bytes:
        words = (device.read_register(address + at) for at in range(0, size, 4))
        return b"".join(word.to_bytes(4, "big") for word in words)[:size]

    where = read(0x200, 512).partition(b"\0")[0].decode()  # Local:NAME;ADDRESS;SIZE, hexadecimal
    address, size = (int(number, 16) for number in where.split(";")[1:])
    return read(address, size).decode()


def test_a_camera_that_offers_the_time_of_exposure_and_sends_none_is_read(monkeypatch, tmp_path):
    """Aravis's camera sends no chunks; with this description it says that it does."""
    system_gi.seen(monkeypatch)
    description = tmp_path / "camera.xml"
    with GigeCamera(SERIAL) as camera:
        until(found_devices, "the camera answers")
        own = genicam._aravis().Camera.new(camera.shown.removeprefix("genicam://"))
        text = description_of(own.get_device())
        del own
    description.write_text(text.replace("</RegisterDescription>", CHUNKS))
    with GigeCamera(SERIAL, description=description) as camera:
        until(found_devices, "the camera answers")
        name = camera.shown.removeprefix("genicam://")
        reader = genicam._Link(name, GenicamOptions(packet_size=1400), ANY_FORMAT).open()
        assert reader._chunks is not None
        assert reader._camera.get_chunk_mode()
        assert reader._camera.get_chunk_state("Timestamp")
        until(lambda: isinstance(reader.read(), np.ndarray), "an image comes")
        assert reader._chunks is None
        assert reader.due <= time.monotonic()
        reader.release()


def test_a_line_ends_though_its_camera_is_frozen(bundle, tmp_path):
    with GigeCamera(SERIAL) as camera:
        arguments = ["--bundle", bundle.path, "--page-port", 0]
        arguments += ["--camera", f"{camera.address}?silence=60&packet_size=1400"]
        with RunningLine(tmp_path, *arguments, environment=system_gi.ENVIRONMENT) as line:
            line.wait_for(3)
            camera.freeze()
            assert line.stop() < LONGEST_STOP
    assert frames_in_order(line.decisions())


def test_it_is_found_and_a_connection_that_ends_leaves_nothing_behind(monkeypatch):
    system_gi.seen(monkeypatch)
    with GigeCamera(SERIAL) as camera:
        found: list[GenicamDevice] = []
        until(lambda: found.extend(found_devices()) or found, "the camera answers")
        device = found[0]
        assert (device.serial, device.protocol, device.address) == (SERIAL, "GigEVision", HOST)
        assert camera.shown == f"genicam://{device.id}"
        link = genicam._Link(device.id, GenicamOptions(packet_size=1400), ANY_FORMAT)
        after_the_first: tuple[int, int] | None = None

        def nothing_is_left() -> bool:
            """Not equal: threads of other tests may end meanwhile."""
            return all(map(le, open_now(), after_the_first))

        for _ in range(4):
            reader = link.open()
            until(lambda: isinstance(reader.read(), np.ndarray), "an image comes")  # noqa: B023
            reader.release()
            after_the_first = after_the_first or open_now()
            until(nothing_is_left, "its threads and files are gone")
        reader = genicam._Link(device.id, GenicamOptions(trigger="Software"), ANY_FORMAT).open()
        signal = reader._camera.software_trigger  # a stand-in of whoever pulls its line
        assert all(isinstance(reader.read(), str) for _ in range(5)), "none comes unasked"
        for _ in range(3):
            signal()
            until(lambda: isinstance(reader.read(), np.ndarray), "an image comes")
        assert isinstance(reader.read(), str), "one frame for each signal"
        del signal
        reader.release()
        until(nothing_is_left, "its threads and files are gone")
