"""Settings of a stream: file and flags, every fault at once, and back to text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer import Typer
from typer.testing import CliRunner

from hvq_edge.cli.stream import add_stream
from hvq_edge.errors import SettingsError
from hvq_edge.stream.settings import StreamSettings, load_stream_settings

FILE = """
bundle = "line 1/bundle"
policy = "all"

[[cameras]]
camera = "rtsp://user:s3cret@10.0.0.5/left"
name = "left"
roi = [10, 20, 300, 200]
rotate = 90

[[cameras]]
camera = 1
roi_polygon = [[0, 0], [100, 0], [50, 80]]
trigger_port = 0
trigger_frames = 3

[decision]
k_of_n = "2/3"
mm_per_pixel = 0.05

[[decision.grades]]
name = "minor"

[[decision.grades]]
name = "major"
area = 4.0
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "stream.toml"
    path.write_text(FILE)
    return path


def test_file(file):
    settings = load_stream_settings(file)
    left, right = settings.cameras
    assert settings.bundle == Path("line 1/bundle")
    assert (left.name, left.roi, left.rotate, left.every) == ("left", (10, 20, 300, 200), 90, 1)
    assert right.roi_polygon == ((0, 0), (100, 0), (50, 80))
    assert right.triggered
    rule = settings.decision
    assert (rule.k_of_n.k, rule.k_of_n.n, rule.mm_per_pixel) == (2, 3, 0.05)
    assert [(grade.name, grade.area) for grade in rule.grades] == [("minor", None), ("major", 4.0)]


def test_flags_win(file):
    settings = load_stream_settings(
        file,
        cameras=["1", "video.mp4"],
        each_camera={"rotate": 180, "every": None},
        decision={"mm_per_pixel": 0.1},
        flags={"policy": None, "max_frames": 7},
    )
    known, new = settings.cameras
    assert known.roi_polygon is not None, "a camera of the file keeps its settings"
    assert (known.rotate, new.rotate, new.camera) == (180, 180, "video.mp4")
    assert (settings.policy, settings.max_frames) == ("all", 7)
    assert settings.decision.mm_per_pixel == 0.1
    assert settings.decision.k_of_n is not None


def test_text_gives_the_same_settings_without_credentials(file, tmp_path):
    settings = load_stream_settings(file)
    text = settings.to_toml()
    assert "s3cret" not in text
    again = tmp_path / "again.toml"
    again.write_text(text)
    expected = json.loads(settings.model_dump_json())
    expected["cameras"][0]["camera"] = "rtsp://10.0.0.5"
    assert json.loads(load_stream_settings(again).model_dump_json()) == expected


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        ("", ["cameras: none is given"]),
        ("camera = 0\nevery = 0", ["none is given", "camera", "every"]),
        ("cameras = 3", ["cameras: must be tables"]),
        (
            "[[cameras]]\ncamera = true\nrotate = 45\nevry = 2\n[decision]\nhysteresis = 1.5",
            ["cameras.0.camera", "cameras.0.rotate", "cameras.0.evry", "decision.hysteresis"],
        ),
        (
            "[[cameras]]\ncamera = 0\nroi = [0, 0, 5, 5]\ntrigger_frames = 2",
            ["at least 16 pixels", "trigger_frames and trigger_delay need"],
        ),
        (
            "[[cameras]]\ncamera = 0\ntrigger_port = 1\ntrigger_file = 'x'\nevery = 2",
            ["trigger_file and trigger_port were given together", "every skips triggered frames"],
        ),
        (
            "[[cameras]]\ncamera = 0\ntrigger_port = 1\n[decision]\nk_of_n = '2/3'",
            ["a trigger takes 1: make trigger_frames the same"],
        ),
        (
            "[[cameras]]\ncamera = 0\nname = 'a'\n[[cameras]]\ncamera = 1\nname = 'a'",
            ["two cameras have the same name"],
        ),
        (
            "[[cameras]]\ncamera = 0\n[sinks.webhook]\nurl = 'http://mes.example/x'",
            ["sinks.webhook: the decision log", "--out"],
        ),
        ("[[cameras]]\ncamera = 0\n[sinks.mqtt]\nhost = 'broker'", ["sinks.mqtt", "--out"]),
        (
            "[[cameras]]\ncamera = 0\npart_from = '('\npart_code = 'qr'\n"
            "part_code_region = [0, 0, 8, 99]\npart_opcua_node = 'i=3'",
            [
                "part_from and part_code and part_opcua_node were given together",
                "part_from: is no regular expression: missing )",
                "part_from: the frames of a camera have no file name",
                "part_code_region: left, top, width and height must be at least 16 pixels a side",
                "part_opcua_node needs trigger_file or trigger_port or trigger_topic",
            ],
        ),
        (
            "[[cameras]]\ncamera = 0\ntrigger_topic = 'line/part'",
            ["trigger_topic is a topic of the broker of [sinks.mqtt], and there is no such"],
        ),
        ("[[cameras]]\ncamera = 0\ntrigger_topic = 'line/+'", ["trigger_topic: must"]),
        (
            "[[cameras]]\ncamera = 0\ntrigger_file = '/run/line/trigger'\n"
            "[[cameras]]\ncamera = 1\ntrigger_file = '/run/other/../line/trigger'",
            ["two cameras have the trigger_file /run/line/trigger", "a trigger_file of its own"],
        ),
        (
            "[[cameras]]\ncamera = 0\ntrigger_port = 1\n[[cameras]]\ncamera = 1\ntrigger_port = 1",
            ["two cameras have the trigger_port 1", "a trigger_port of its own"],
        ),
        (
            "[[cameras]]\ncamera = 0\ntrigger_port = 1\npart_opcua_node = 'i=3'",
            ["part_opcua_node is a node of the server of [sinks.opcua], and there is no such"],
        ),
        (
            "[[cameras]]\ncamera = 'a.avi'\npart_code = 'ean'\npart_code_region = [0, 0, 99, 99]",
            ["part_code: must be 'any', 'qr', 'data-matrix' or 'code-128'"],
        ),
        (
            "[[cameras]]\ncamera = 'a.avi'\npart_code_region = [0, 0, 99, 99]",
            ["part_code_region needs part_code"],
        ),
        ("decision = 3\n[[cameras]]\ncamera = 0", ["decision"]),
        ("[[cameras]]\ncamera = 0\n[decision]\nk_of_n = '3/2'", ["3 of 2 frames"]),
        ("[[cameras]]\ncamera = 0\n[decision]\nmm_per_pixel = nan", ["mm_per_pixel"]),
    ],
)
def test_every_fault_at_once(tmp_path, lines, faults):
    path = tmp_path / "stream.toml"
    path.write_text(lines)
    with pytest.raises(SettingsError) as raised:
        load_stream_settings(path)
    for fault in faults:
        assert fault in raised.value.cause
    assert raised.value.next_step


def test_a_trigger_is_of_one_camera():
    with pytest.raises(SettingsError, match="two cameras have the trigger_file"):
        load_stream_settings(cameras=[0, 1], each_camera={"trigger_file": "t"})
    one = load_stream_settings(cameras=[0], each_camera={"trigger_file": "t"})
    assert one.cameras[0].triggered
    free = load_stream_settings(cameras=[0, 1], each_camera={"trigger_port": 0})
    assert [camera.trigger_port for camera in free.cameras] == [0, 0]


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        ("[[cameras]]\ncamera = 0\nroi = [1, 2]", ["cameras.0.roi"]),
        ("decison = 3\n[[cameras]]\ncamera = 0", ["decison: unknown key (did you mean decision?)"]),
        (
            "[[cameras]]\ncamera = 0\nevry = 2\nzebra = 1",
            [
                "cameras.0.evry: unknown key (did you mean every?)",
                "cameras.0.zebra: unknown key",
            ],
        ),
        (
            "[[cameras]]\ncamera = 0\n[sinks.webhok]\n[sinks.webhook]\nurl = 'me:s3cret@mes'",
            [
                "sinks.webhook.url: must begin with http:// or https://, then name a host",
                "sinks.webhok: unknown key (did you mean webhook?)",
            ],
        ),
        (
            "precision = 3\n[[cameras]]\ncamera = 0",
            ["precision: must be a valid string (given: 3)"],
        ),
        ("[[cameras]]\ncamera = 's3cret'\nevery = 's'", ["cameras.0.every", "(given: 's')"]),
        ("[[cameras]]\ncamera = ['s3cret']", ["cameras.0.camera.str", "cameras.0.camera.int"]),
    ],
)
def test_faults_in_words_without_what_follows_from_them(tmp_path, lines, faults):
    path = tmp_path / "stream.toml"
    path.write_text(lines)
    with pytest.raises(SettingsError) as raised:
        load_stream_settings(path)
    cause = raised.value.cause
    assert all(fault in cause for fault in faults), cause
    assert "s3cret" not in cause
    assert not any(raw in cause for raw in ("Extra inputs", "at least 1 item", "String should"))


def test_file_that_is_none(tmp_path):
    with pytest.raises(SettingsError, match="cannot read"):
        load_stream_settings(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("camera = ")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_stream_settings(tmp_path / "bad.toml")


app = Typer()
add_stream(app)


def is_table(annotation: Any) -> bool:
    """``dict[str, int]`` is a type as well to Python 3.10."""
    plain = isinstance(annotation, type) and not get_args(annotation)
    return plain and issubclass(annotation, BaseModel)


def numbers(annotation: Any, field: FieldInfo | None = None) -> list[bool]:
    """Of each number that a setting may be: whether a bound from above is set."""
    if annotation in (int, float):
        return [any(hasattr(one, "le") or hasattr(one, "lt") for one in field.metadata)]
    if is_table(annotation):
        return []
    inner, *more = get_args(annotation) or [None]
    if get_origin(annotation) is Annotated:
        return numbers(inner, FieldInfo.from_annotation(annotation))
    if get_origin(annotation) is Literal or inner is None:
        return []
    return [bound for one in (inner, *more) for bound in numbers(one, field)]


def tables(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A model and all in it."""

    def within(annotation: Any) -> list[type[BaseModel]]:
        if is_table(annotation):
            return tables(annotation)
        return [one for inner in get_args(annotation) for one in within(inner)]

    return [
        model,
        *(one for field in model.model_fields.values() for one in within(field.annotation)),
    ]


def test_every_number_has_a_largest():
    """Beyond it, products with it would overflow once the line runs."""
    found = {
        f"{model.__name__}.{name}": bounds
        for model in tables(StreamSettings)
        for name, field in model.model_fields.items()
        if (bounds := numbers(field.annotation, field))
    }
    assert len(found) > 30
    assert [name for name, bounds in found.items() if not all(bounds)] == []


@pytest.mark.parametrize(
    "table",
    [
        "[decision]\nmm_per_pixel = 1e300",
        "[sinks.log]\nkeep_days = 1e308",
        "[sinks.rejects]\nkeep_megabytes = 1e308",
        "[sinks.video]\nsegment_minutes = 1e308",
        "[sinks.modbus]\nhost = 'plc'\nhold_ms = 1e308",
        "[[cameras]]\ncamera = 0\nroi_polygon = [[0, 0], [9, 9], [99999999999, 0]]",
    ],
)
def test_a_number_that_would_overflow_is_refused(tmp_path, table):
    file = tmp_path / "line.toml"
    file.write_text(table)
    with pytest.raises(SettingsError, match="must be less than or equal to"):
        load_stream_settings(file, cameras=() if "cameras" in table else [0])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--false-reject", "0.02"], ["--false-reject"]),
        (["--confidence", "0.9", "--method", "x"], ["--confidence", "--method"]),
        (
            ["--calibrate", "40", "--out", "x", "--page", "--video"],
            ["--out", "--page", "--video"],
        ),
    ],
)
def test_flags_without_effect_are_refused(arguments, named):
    result = CliRunner().invoke(app, ["--camera", "0", *arguments])
    assert isinstance(result.exception, SettingsError), result.output
    assert all(flag in result.exception.cause for flag in named)
    assert "leave out" in result.exception.next_step


@pytest.mark.parametrize(
    ("flag", "text"),
    [("--roi", "1,2,3"), ("--roi", "a,b,c,d"), ("--resolution", "640"), ("--roi-polygon", "1,2;3")],
)
def test_flags_that_are_no_numbers(flag, text):
    result = CliRunner().invoke(app, ["--camera", "0", flag, text])
    assert isinstance(result.exception, SettingsError)
    assert flag in result.exception.cause
    assert flag in result.exception.next_step
