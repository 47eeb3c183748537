"""The doctor's look at Python, OpenCV, what reads cameras' streams, and how large a file may be."""

from __future__ import annotations

import pytest
from helpers.engine_bench import cache  # noqa: F401  # a fixture
from helpers.findings import by_name

from hvq_edge.common.child_process import NoAnswer, run_isolated
from hvq_edge.doctor import software


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 9, 1), "missing"), ((3, 10, 0), "ok"), ((3, 13, 2), "ok"), ((3, 15), "note")],
)
def test_python(version, state):
    assert by_name(software.python(version))["python"].state == state


BUILD = """General configuration for OpenCV 4.8.0 =====
  Video I/O:
    DC1394:                      NO
    FFMPEG:                      YES
      avcodec:                   YES (59.37.100)
    GStreamer:                   {gstreamer}
    v4l/v4l2:                    {v4l}
"""


def test_opencv_of_a_jetson_and_of_pip():
    jetson = by_name(
        software.opencv(BUILD.format(gstreamer="YES (1.20.3)", v4l="YES (linux/videodev2.h)"))
    )
    assert jetson["opencv"].found == "4.8.0"
    assert {one.state for one in jetson.values()} == {"ok"}
    assert jetson["opencv-gstreamer"].found == "YES (1.20.3)"
    bare = by_name(software.opencv(BUILD.format(gstreamer="NO", v4l="NO")))
    assert bare["opencv-v4l2"].state == "missing"
    assert bare["opencv-gstreamer"].state in ("note", "missing")
    assert "system-site-packages" in bare["opencv-gstreamer"].remedy
    assert by_name(software.opencv("no such text"))["opencv-ffmpeg"].state == "missing"


def test_what_reads_pipelines():
    lacking = {"opencv": False, "lacking": "Gst is read through PyGObject", "remedy": "apt install"}
    (none,) = software.gstreamer(lambda: lacking)
    assert none.state in ("note", "missing")
    assert none.found == "CSI cameras and gst: need it: Gst is read through PyGObject"
    assert none.remedy == "apt install"
    (own,) = software.gstreamer(lambda: {**lacking, "opencv": True})
    assert (own.state, own.found) == ("ok", "read through OpenCV; decodes in software")
    (best,) = software.gstreamer(
        lambda: {"opencv": True, "version": "1.22.0", "decoders": ["nvv4l2decoder"]}
    )
    assert best.found == (
        "1.22.0, read through PyGObject; decodes network cameras with nvv4l2decoder"
    )


def test_how_large_a_file_may_unpack_to_is_said(monkeypatch):
    assert by_name(software.images())["images"].found == (
        "files of up to 134 million pixels are read; a bundle's known answers may unpack to 64 MiB"
    )
    monkeypatch.setattr(software, "run_isolated", lambda _: run_isolated("import no_such_library"))
    (found,) = software.images()
    assert (found.state, "no_such_library" in found.found) == ("missing", True)


def test_a_library_that_the_system_lacks_is_named_with_its_package(monkeypatch):
    def lacks(*_):
        raise NoAnswer("ImportError: libGL.so.1: cannot open shared object file: No such file")

    monkeypatch.setattr(software, "run_isolated", lacks)
    (found,) = software.opencv()
    assert (found.state, found.remedy) == ("missing", "as root, run apt-get install libgl1")
