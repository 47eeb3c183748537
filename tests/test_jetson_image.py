"""The image for Jetsons: linted, and its compose file and what it copies are right.

No Jetson builds it here. Its Python steps were run by hand in a plain virtual environment
(docs/how-to/jetson.md says which).
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose
from helpers.paths import ROOT

from hvq_edge.cli.app import app
from hvq_edge.stream.live_page.settings import DEFAULT_PORT

DOCKERFILE = (ROOT / "Dockerfile.jetson").read_text(encoding="utf-8")
COMPOSE_TEXT = (ROOT / "compose.jetson.yaml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(COMPOSE_TEXT)


def options_of(command: str) -> set[str]:
    import click
    import typer

    found = typer.main.get_command(app).commands[command]
    params = found.get_params(click.Context(found))  # stream makes its options when asked
    return {name for one in params for name in (*one.opts, *one.secondary_opts)}


def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, ROOT / "Dockerfile.jetson"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_it_copies_is_there_and_sent_to_the_builder():
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [
        name
        for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
        for name in line.split()
    ]
    assert {"hvq_edge", "export", "calibration", "pyproject.toml"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in sent, name


def test_it_runs_as_a_user_of_the_group_video_and_says_whether_it_lives():
    assert re.search(r"^USER (?!0|root)", DOCKERFILE, re.MULTILINE)
    assert "--groups video" in DOCKERFILE
    assert re.search(r"^HEALTHCHECK ", DOCKERFILE, re.MULTILINE)
    assert f"http://127.0.0.1:{DEFAULT_PORT}/healthz" in DOCKERFILE
    assert '"--page"' in DOCKERFILE


def test_its_entry_point_is_a_command_with_these_options():
    (entry,) = re.findall(r"^ENTRYPOINT (\[.+\])$", DOCKERFILE, re.MULTILINE)
    words = yaml.safe_load(entry)
    assert words[:2] == ["hvq-edge", "stream"]
    assert {word for word in words if word.startswith("--")} <= options_of("stream")


def test_what_its_build_imports_is_there_and_is_not_looked_for_among_its_sources():
    ((options, names),) = re.findall(r'python (.*)-c "import (hvq_edge[^"]+)"', DOCKERFILE)
    assert "-I" in options.split()
    for name in names.split(", "):
        assert importlib.util.find_spec(name), name


def as_given(text: str) -> str:
    """The file with the defaults of its variables, as Docker Compose would read it."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_compose_is_of_its_specification():
    read = PyCompose.from_yaml(as_given(COMPOSE_TEXT))
    read.validate()
    assert set(read.service_names()) == {"build", "inspector"}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("group_add", "group_ad"),
        ("init: true", "init: maybe"),
        ("restart: unless-stopped", "restart: sometimes"),
        ("driver: local", "drive: local"),
    ],
)
def test_the_specification_is_really_held_against_it(right, wrong):
    with pytest.raises(ValueError, match=r"services\.inspector"):
        PyCompose.from_yaml(as_given(COMPOSE_TEXT.replace(right, wrong)))


def test_compose_builds_for_the_gpu_and_mounts_what_there_is():
    assert set(COMPOSE) == {"services", "volumes"}
    for service in COMPOSE["services"].values():
        assert service["runtime"] == "nvidia"
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        for volume in service["volumes"]:
            source, target, *mode = as_given(volume).split(":")
            assert target.startswith("/")
            assert mode in ([], ["ro"])
            assert source in COMPOSE["volumes"] or source.startswith(("/", "./"))


def test_compose_gives_cameras_and_options_that_exist():
    inspector, build = COMPOSE["services"]["inspector"], COMPOSE["services"]["build"]
    assert any(device.endswith(":/dev/video0") for device in inspector["devices"])
    assert "/tmp/argus_socket:/tmp/argus_socket" in inspector["volumes"]
    assert inspector["group_add"] == ["video"]
    assert {word for word in inspector["command"] if word.startswith("--")} <= options_of("stream")
    assert build["entrypoint"][:2] == ["hvq-edge", "build"]
    assert {word for word in build["entrypoint"] if word.startswith("--")} <= options_of("build")
    assert "/bundle:ro" not in build["volumes"][0], "the engine is written into it"


ARM64 = ROOT / "tests" / "arm64.sh"
"""Debian for ARM64 under emulation, by hand: docs/how-to/jetson.md says what came out."""


def arm64(*options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ARM64, *options], capture_output=True, text=True, check=False)


def test_the_script_for_arm64_is_bash_and_has_each_step_that_it_lists():
    assert subprocess.run(["bash", "-n", ARM64], check=False).returncode == 0
    steps = re.findall(r"^step_(\w+)\(\) \{", ARM64.read_text(encoding="utf-8"), re.MULTILINE)
    assert arm64("--list").stdout.split() == steps
    assert "tests/arm64.sh" in arm64("--help").stdout


@pytest.mark.parametrize("wrong", ["--runs", "nothing", "--folder"])
def test_the_script_for_arm64_refuses_what_it_does_not_know_before_it_does_anything(wrong):
    done = arm64(wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert wrong in done.stderr


def test_the_script_for_arm64_takes_the_image_apart_command_by_command(tmp_path):
    code = re.search(r"image\" <<'END'\n(.+?)\nEND\n", ARM64.read_text(encoding="utf-8"), re.DOTALL)
    subprocess.run([sys.executable, "-c", code[1], ROOT, tmp_path], check=True)
    commands = (tmp_path / "commands").read_text(encoding="utf-8").splitlines()
    run = [one for one in commands if one.startswith("RUN ")]
    assert len(run) == DOCKERFILE.count("\nRUN ") + DOCKERFILE.count(" && ")
    assert not [one for one in commands if "${" in one or "\\" in one]
    assert "COPY hvq_edge /opt/hvq-edge/source/hvq_edge" in commands
