"""Network cameras that die and come back: a real RTSP server, killed while it streams."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import system_gi
from helpers.paths import HELPERS
from helpers.patience import until
from helpers.receivers import free_port
from helpers.running_line import LONGEST_STOP, RunningLine, frames_in_order, parts, save_line_bundle

from hvq_edge.stream.sources.cameras import rtsp_camera
from hvq_edge.stream.sources.cameras.appsink import AppsinkReader
from hvq_edge.stream.sources.open_source import open_source

LACKS_GST = system_gi.lacks("gir1.2-gstreamer-1.0", "Gst", "1.0")
SERVER = HELPERS / "rtsp_server.py"
PYTHON = "/usr/bin/python3"
NEEDS = "import gi; gi.require_version('GstRtspServer', '1.0')"
RATE = 15
LONG = 1200.0
"""Seconds of a film that does not end during a test, however busy the machine is."""
LONGEST_ENCODED = 30.0
"""A longer film is this one again and again."""
SECRETS = ("inspector-7", "tulip-9")


def missing() -> str:
    """Why no server can run here; empty where one can."""
    if shutil.which("ffmpeg") is None:
        return "ffmpeg is not installed"
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", NEEDS], stderr=-3).returncode:
        return "gir1.2-gst-rtsp-server-1.0 is not installed"
    return ""


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "it is installed")


class Server:
    """May be killed and started again on the same port."""

    def __init__(self, film: Path) -> None:
        self.port = free_port()
        self._film = film
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [PYTHON, SERVER, str(self.port), self._film], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def url(self, mount: str = "line") -> str:
        return f"rtsp://{':'.join(SECRETS)}@127.0.0.1:{self.port}/{mount}"

    @property
    def shown(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}"


def save_h264(path: Path, seconds: float) -> Path:
    """What a camera sends: H.264 without B frames, a key frame every second."""
    side = 64
    ffmpeg = ["ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    ffmpeg += ["-s", f"{side}x{side}", "-r", str(RATE), "-i", "-"]
    ffmpeg += ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"]
    ffmpeg += ["-g", str(RATE), "-pix_fmt", "yuv420p"]
    once = min(seconds, LONGEST_ENCODED)
    images = b"".join(image.tobytes() for image in parts(round(once * RATE), side))
    piece = path.with_stem(f"{path.stem} once")
    subprocess.run([*ffmpeg, str(piece)], input=images, check=True)
    again = ["-stream_loop", str(round(seconds / once) - 1), "-i", str(piece), "-c", "copy"]
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *again, str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_line_bundle(tmp_path_factory.mktemp("rtsp") / "bundle")


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Of :data:`LONG`."""
    return save_h264(tmp_path_factory.mktemp("film") / "line.mp4", LONG)


@pytest.fixture
def server_of():
    started = []

    def start(film: Path) -> Server:
        started.append(Server(film))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def test_a_server_killed_mid_stream_is_a_gap_and_no_more(bundle, film, tmp_path, server_of):
    server = server_of(film)
    arguments = ["--bundle", bundle.path, "--camera", server.url(), "--page-port", 0]
    with RunningLine(tmp_path, *arguments) as line:
        line.wait_for(20)
        server.kill()
        line.wait_for(2, "no_decision")
        until(lambda: line.get("healthz")[0] == 503, "the page says that the camera is lost")
        assert "gave no image" in line.get("healthz")[1]
        server.start()
        line.wait_for(20, "pass")
        line.wait_for(2, "reject")
        until(lambda: line.get("healthz")[0] == 200, "the page says that all is well")
        shown = "".join(
            line.get(path)[1] for path in ("healthz", "metrics", "api/state", "api/decisions")
        )
        assert line.stop() < LONGEST_STOP
    counts = line.assert_it_fits()
    decisions = line.decisions()
    assert frames_in_order(decisions)
    assert counts["no_decision"] >= 2
    assert counts["passed"] > counts["rejected"] >= 2
    (start,) = line.events("gap_start")
    (end,) = line.events("gap_end")
    assert start["camera"] == end["camera"] == server.shown
    assert end["frames"] == counts["no_decision"] == len([d for d in decisions if not d["score"]])
    rows = b"".join(path.read_bytes() for path in line.out.rglob("*") if path.is_file())
    told = line.said + line.printed + shown
    for secret in SECRETS:
        assert secret not in told
        assert secret.encode() not in rows


@pytest.mark.skipif(bool(LACKS_GST), reason=LACKS_GST or "it is installed")
def test_a_server_killed_while_gstreamer_reads_it_is_a_gap_too(monkeypatch, film, server_of):
    """As on a machine that decodes in hardware; what decodes here is software."""
    system_gi.seen(monkeypatch)
    monkeypatch.setattr(rtsp_camera, "hardware_decoders", lambda _: ["a decoder"])
    server = server_of(film)
    source = open_source(server.url())
    assert isinstance(source._reader, AppsinkReader)
    assert source.name == server.shown
    frames = iter(source)
    assert [next(frames).image.shape for _ in range(3)] == [(64, 64, 3)] * 3
    server.kill()
    lost = next(frame for frame in frames if frame.image is None)
    server.start()
    assert next(frame for frame in frames if frame.image is not None).index > lost.index
    source.close()
    assert not [frame for frame in frames if frame.image is not None]
    assert lost.fault == f"{server.shown} gave no image"


def test_four_cameras_one_ends_and_one_dies(bundle, film, tmp_path, server_of):
    """The first plays a film that ends after 3 s, again and again; the second server is killed."""
    ending = server_of(save_h264(tmp_path / "short.mp4", 3))
    living, dying = server_of(film), server_of(film)
    urls = [ending.url(), living.url(), living.url("line1"), dying.url()]
    cameras = [word for url in urls for word in ("--camera", url)]
    with RunningLine(tmp_path, "--bundle", bundle.path, *cameras) as line:
        names = [ending.shown, living.shown, f"{living.shown} #2", dying.shown]
        for name in names:
            line.wait_for(5, "pass", name)
        dying.kill()
        line.wait_for(1, "no_decision", dying.shown)
        for name in names[:3]:
            line.wait_for(15, "pass", name)
        line.wait_for(1, "no_decision", ending.shown)
        line.wait_for(5, "pass", ending.shown)
        assert line.stop() < LONGEST_STOP
    counts = line.assert_it_fits()
    assert frames_in_order(line.decisions())
    assert counts["no_decision"] == sum(one["verdict"] == "no_decision" for one in line.decisions())
    begun = {event["camera"] for event in line.events("gap_start")}
    ended = {event["camera"] for event in line.events("gap_end")}
    assert begun == {ending.shown, dying.shown}
    assert ended == {ending.shown}
    lost = {one["camera"] for one in line.decisions() if one["score"] is None}
    assert lost == begun, "the others lost nothing"
