"""A week of a line: the commands of docs/tutorials/a-week.md run, with a small model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.a_week import LEFT_OUT, PAGE, Command, Printed, lay_out, printed_line, walk
from hvq_edge.run.latest import point_latest
from hvq_edge.run.record import read_run
from hvq_edge.training.categories.change import remove_category


@pytest.mark.long
def test_the_commands_print_what_the_page_shows(
    small_trained_run: Path,
    small_trained_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trainings and exports take most of the time, and are run for the README: here they are
    copies of a small run that knows both products. All else is as written."""
    monkeypatch.setenv("COLUMNS", "100")
    folder = tmp_path / "line"
    lay_out(folder)
    poly = read_run(small_trained_run).categories[1]
    run = folder / "no run yet"

    def replaced(command: Command) -> Printed | None:
        nonlocal run
        verb, *rest = command.text.split()[1:]
        if verb in ("train", "add-category"):
            run = folder / rest[-1]
        if verb == "train":
            if run.name == "friday":
                remove_category(small_trained_run, run, poly)
            else:
                shutil.copytree(small_trained_run, run)
            with monkeypatch.context() as patch:
                patch.chdir(folder)
                point_latest(run.relative_to(folder))
        elif verb == "export":
            shutil.rmtree(run)
            shutil.copytree(small_trained_run, run)
            shutil.copytree(small_trained_bundle, run / "bundle")
        else:
            return None
        return Printed(0, list(command.shown))

    missing = []
    for command, printed in walk(PAGE.read_text(encoding="utf-8"), folder, replaced):
        # A model that has hardly learnt: that verify says so is its job.
        allowed = (0, 1) if " verify " in command.text else (0,)
        assert printed.code in allowed, "\n".join([command.text, *printed.lines])
        # And that it passes what the page's model rejects.
        lines = iter([one.replace("no region; highest ", "") for one in printed.lines])
        for shown in command.shown:
            if shown != LEFT_OUT and printed_line(shown, lines) is None:
                missing.append("\n".join([command.text, shown, "", *printed.lines]))
                break
    assert not missing, "\n\n".join(missing)


def test_what_a_page_shows_is_of_any_processor() -> None:
    shown, other = (
        f"Inspecting left with {engine} ({machine} 2026.4.1)."
        for engine, machine in (
            ("int8 on openvino", "AMD EPYC, OpenVINO"),
            ("fp32 on onnxruntime", "Intel(R) Xeon(R) Processor, ONNX Runtime"),
        )
    )
    assert printed_line(shown, iter([other])) == other
    assert printed_line(shown, iter([other.replace("left", "right")])) is None
