"""Serial numbers of parts: in the names of files and in codes in the image."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
import zxingcpp
from helpers.bright_parts import BrightnessEngine, bundle  # noqa: F401  # a fixture
from helpers.graphs import SIDE
from helpers.images import flat, make_texture, write_png
from helpers.patience import PATIENCE_SECONDS
from helpers.sources import AlwaysTrigger, ListSource

from hvq_edge.errors import MissingCapability
from hvq_edge.stream.capture import part_number as part_number_module
from hvq_edge.stream.capture.open_cameras import open_cameras
from hvq_edge.stream.capture.part_number import PartReader
from hvq_edge.stream.capture.prepared import Preparation, PreparedSource
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.settings import CameraSettings
from hvq_edge.stream.sinks.sink_settings import OpcUaSettings
from hvq_edge.stream.sources.source import part_number

FORMATS = {"qr": "QRCode", "data-matrix": "DataMatrix", "code-128": "Code128"}


def labelled(text: str, kind: str = "qr", left: int = 40, top: int = 30) -> np.ndarray:
    """A part of 320x240 with a code on it."""
    code = zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, FORMATS[kind]))
    label = np.array(code.to_image(scale=3 if kind != "code-128" else 1))
    image = make_texture(1, height=240, width=320, grain=4.0)
    image[top : top + label.shape[0], left : left + label.shape[1]] = label[..., np.newaxis]
    return image


def parts_of(images, **settings):
    camera = CameraSettings(camera="parts", **settings)
    source = PreparedSource(ListSource(images), Preparation(), parts=PartReader(camera))
    return [frame.part for frame in source], source.unread_parts


@pytest.mark.parametrize("kind", FORMATS)
def test_codes_are_read_by_their_kind(kind):
    others = [one for one in FORMATS if one != kind]
    images = [labelled(f"SN {i}", one) for i, one in enumerate([kind, *others])]
    assert parts_of(images, part_code=kind) == (["SN 0", "", ""], 2)
    assert parts_of(images, part_code="any") == (["SN 0", "SN 1", "SN 2"], 0)


@pytest.mark.parametrize("zxing", [True, False])
def test_what_cannot_be_read_is_no_number_and_counted(zxing, monkeypatch):
    if not zxing:
        monkeypatch.setitem(sys.modules, "zxingcpp", None)
    two = np.hstack([labelled("SN-1"), labelled("SN-2")])
    blurred = cv2.GaussianBlur(labelled("SN-1"), (0, 0), 9)
    images = [labelled("SN-1"), None, flat(0, 1), blurred, two, labelled("9" * 201)]
    assert parts_of(images, part_code="qr") == (["SN-1", "", "", "", "", ""], 4)
    same = np.hstack([labelled("SN-1"), labelled("SN-1")])
    region = {"part_code_region": (320, 0, 320, 240)}
    assert parts_of([same, two], part_code="qr") == (["SN-1", ""], 1)
    assert parts_of([two, labelled("SN-1")], part_code="qr", **region) == (["SN-2", ""], 1)


def test_a_code_is_looked_for_in_the_turned_image_before_it_is_cut(monkeypatch):
    image = np.rot90(labelled("SN-1", left=200, top=100)).copy()  # which rotate=90 turns back
    settings = CameraSettings(
        camera="parts", part_code="any", part_code_region=(180, 80, 140, 160), rotate=90
    )
    preparation = Preparation(rotate=90, roi=(0, 0, 64, 64))
    (frame,) = PreparedSource(ListSource([image]), preparation, parts=PartReader(settings))
    assert (frame.part, frame.image.shape) == ("SN-1", (64, 64, 3))
    beyond = Preparation(rotate=90, roi=(300, 0, 64, 64))
    (frame,) = PreparedSource(ListSource([image]), beyond, parts=PartReader(settings))
    assert (frame.part, frame.image) == ("SN-1", None), "a lost frame of a part that is known"


def test_a_code_that_takes_long_to_read_holds_up_no_other_camera(bundle, monkeypatch):
    """Nor the engine, which all cameras share: codes are read on each camera's own thread."""
    reading, release = threading.Event(), threading.Event()

    def slow(_image):
        reading.set()
        assert release.wait(PATIENCE_SECONDS)
        return ["SN-1"]

    monkeypatch.setattr(part_number_module, "open_code_reader", lambda _kind: slow)
    reader = PartReader(CameraSettings(camera="left", part_code="qr"))
    left = PreparedSource(ListSource([flat(9, SIDE)]), Preparation(), "left", reader)
    right = PreparedSource(ListSource([flat(9, SIDE)] * 5), Preparation(), "right")
    decisions = iter(Inspector(BrightnessEngine(), bundle, [left, right]))
    seen = [next(decisions) for _ in range(5)]
    assert reading.wait(PATIENCE_SECONDS)
    assert [one.camera for one in seen] == ["right"] * 5
    release.set()
    assert [(one.camera, one.part, one.verdict) for one in decisions] == [("left", "SN-1", "pass")]


def test_other_codes_than_qr_need_zxing_and_it_is_said_before_a_camera_opens(monkeypatch):
    monkeypatch.setitem(sys.modules, "zxingcpp", None)
    cameras = [CameraSettings(camera="no such film.mp4", part_code="any")]
    with pytest.raises(MissingCapability, match="kind any are read by zxing-cpp alone") as raised:
        open_cameras(cameras)
    assert raised.value.next_step == "pip install 'hvq-edge[codes]', or --part-code qr"


@pytest.mark.parametrize(
    ("pattern", "number"),
    [
        (r"(?P<day>\d+)_(?P<part>SN\d+)", "SN42"),
        (r"_(\w+)\.png$", "SN42"),
        (r"SN\d+", "SN42"),
        (r"SN(\d*)x?", "42"),
        (r"(x)?SN", ""),
        (r"AB\d+", ""),
    ],
)
def test_a_pattern_over_the_name_finds_the_number(tmp_path, pattern, number):
    write_png(tmp_path / "line 1" / "20240101_SN42.png", flat(9))
    (tmp_path / "line 1" / "20240102_SN42.png").write_text("broken")
    cameras = open_cameras([CameraSettings(camera=str(tmp_path), part_from=pattern)])
    (source,) = cameras.sources
    good, broken = source
    assert good.name == "line 1/20240101_SN42.png"
    assert [good.part, broken.part] == [number, number]
    assert source.unread_parts == (not number), "only images count"


def test_what_the_trigger_says_counts_more():
    reader = PartReader(CameraSettings(camera="parts", part_from=r"\d+"))
    assert reader.read("17.png", flat(1), "SN-1") == "SN-1"
    assert reader.read("17.png", flat(1), "") == "17"
    unnamed = replace(next(iter(ListSource([flat(1)]))), part="SN-1")
    assert PartReader(CameraSettings(camera="parts")).read("", flat(1), unnamed.part) == "SN-1"


@pytest.mark.parametrize(
    ("text", "number"),
    [(" \tSN 1\r\n", "SN 1"), ("\x1d01\x1d02", "01\x1d02"), ("\udcff", "\\udcff"), (" ", "")],
)
def test_a_serial_number_is_text_without_space_around_it(text, number):
    assert part_number(text) == number
    assert part_number("9" * 200) == "9" * 200
    assert part_number("9" * 201) == ""


def test_a_trigger_that_comes_while_the_line_stops_is_none():
    part_node = pytest.importorskip("hvq_edge.stream.capture.part_node")
    settings = OpcUaSettings(url="opc.tcp://127.0.0.1:9/", reject_node="ns=2;s=reject")
    source = part_node.PartNode(AlwaysTrigger(), settings, "ns=2;s=part")
    source.close()
    assert source.wait(1.0) is None
    assert source.part() == ""
