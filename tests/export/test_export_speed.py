"""What ``hvq-edge export --int8`` says of INT8's speed on this machine."""

from __future__ import annotations

import pytest

from hvq_edge.cli.export import _say_what_is_fastest
from hvq_edge.errors import MissingCapability
from hvq_edge.runtime import open_engine
from hvq_edge.runtime.open_engine import EngineChoice

TIMES = "; fp32 on openvino: 8.0 ms an image, int8 on openvino 9.0 (measured on this machine)"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (
            EngineChoice("openvino", "int8", "int8: verified" + TIMES),
            ["INT8 wins. int8: verified; fp32"],
        ),
        (
            EngineChoice("onnxruntime", "fp32", "fp32: int8 is no faster here" + TIMES),
            [
                "INT8 does not win: use --precision fp32 --backend onnxruntime",
                "no faster here; fp32 on openvino: 8.0 ms",
            ],
        ),
    ],
)
def test_it_names_what_wins_and_all_times(choice, said, monkeypatch, capsys):
    monkeypatch.setattr(open_engine, "choose", lambda _: choice)
    _say_what_is_fastest(None)
    printed = capsys.readouterr().out
    assert printed.startswith("On this machine INT8 ")
    for words in said:
        assert words in printed


def test_where_nothing_can_be_timed_the_bundle_is_still_written(monkeypatch, capsys):
    def nothing(_):
        raise MissingCapability("OpenVINO is not installed.", next_step="pip install openvino")

    monkeypatch.setattr(open_engine, "choose", nothing)
    _say_what_is_fastest(None)
    assert "No engine could be timed: OpenVINO is not installed." in capsys.readouterr().err
