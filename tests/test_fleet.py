"""``docs/how-to/fleet.md`` and ``examples/fleet``: a bundle goes out by plain HTTP as it says,
every metric that is asked for is one that /metrics has, and every file is of its form.

Docker runs nowhere here: docs/how-to/fleet.md says what was tried by hand.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import click
import pytest
import typer
import yaml
from compose_spec import PyCompose
from helpers.paths import ROOT
from helpers.patience import HANG_SECONDS
from prometheus_client.parser import text_string_to_metric_families

pytest.importorskip("onnx")
from helpers.commands import exit_code
from helpers.graphs import save_bundle

from hvq_edge.bundle.integrity.keys import new_key
from hvq_edge.bundle.integrity.staged_update import current_version
from hvq_edge.cli.app import app
from hvq_edge.stream.latency import LatencyHistogram
from hvq_edge.stream.live_page.connections import Connections
from hvq_edge.stream.live_page.judge import ImageJudge
from hvq_edge.stream.live_page.prometheus_metrics import render, render_judge, render_page
from hvq_edge.stream.settings import load_stream_settings
from hvq_edge.stream.statistics import CameraStatistics, Counts, SinkStatistics, Statistics

FLEET = ROOT / "examples" / "fleet"
PAGE = (ROOT / "docs/how-to/fleet.md").read_text(encoding="utf-8")
COMPOSE_TEXT = (FLEET / "compose.yaml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
ALERTS = yaml.safe_load((FLEET / "alerts.yml").read_text(encoding="utf-8"))
PROMETHEUS = yaml.safe_load((FLEET / "prometheus.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((FLEET / "grafana" / "fleet.json").read_text(encoding="utf-8"))
PROMTOOL = shutil.which("promtool")
OF_PROMETHEUS = {"up": {"job", "instance"}}


@cache
def reported() -> dict[str, set[str]]:
    """Metrics that an inspector renders, with the labels of each."""
    latency = LatencyHistogram()
    latency.add(1.0)
    statistics = Statistics(
        1.0,
        (CameraStatistics("belt", Counts(2, 1, 1), connected=True),),
        (SinkStatistics("log", 2, 0, 0),),
        {"engine": latency},
    )
    running = dict.fromkeys(("version", "bundle_sha256", "precision", "backend"), "x")
    judge = ImageJudge(lambda: pytest.fail("no image came"))
    text = render(statistics, running) + render_page(Connections()) + render_judge(judge)
    judge.close()
    found = dict(OF_PROMETHEUS)
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {"job", "instance"}).update(sample.labels)
    return found


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*panels, *(rule["expr"] for group in ALERTS["groups"] for rule in group["rules"])]


@pytest.mark.parametrize("expression", expressions())
def test_a_query_asks_for_metrics_and_labels_that_an_inspector_reports(expression):
    names = re.findall(r"\b(?:hvq_\w+|up)\b", expression)
    assert names
    labels: set[str] = set()
    for name in names:
        assert name in reported(), name
        labels |= reported()[name]
    asked = re.findall(r"(\w+)\s*=~?\s*\"", expression)
    asked += [
        one for inner in re.findall(r"by \(([^)]*)\)", expression) for one in inner.split(", ")
    ]
    assert set(asked) <= labels


def test_a_message_names_labels_that_its_rule_has():
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
            names = re.findall(r"\b(?:hvq_\w+|up)\b", rule["expr"])
            assert shown <= set.intersection(*(reported()[name] for name in names)), rule["alert"]
            assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_page_tells_of_every_alert_and_every_metric():
    alerts = {rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]}
    assert alerts == set(re.findall(r"^\| `([A-Z]\w+)` \|", PAGE, re.MULTILINE))
    rows = re.findall(r"^\| (`hvq_.*?) \|", PAGE, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(hvq_\w+)`", row)}
    timestamps = {name for name in reported() if name.endswith("_created")}
    assert told == set(reported()) - set(OF_PROMETHEUS) - timestamps


def test_the_dashboards_panels_lie_side_by_side():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_takes_configuration_and_rules():
    for arguments in (
        ["check", "config", "--syntax-only", FLEET / "prometheus.yml"],
        ["check", "rules", FLEET / "alerts.yml"],
    ):
        done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def commands_of(heading: str) -> list[list[str]]:
    """The commands of a section, one list a block."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [block.splitlines() for block in re.findall(r"^```\n(.*?)^```", section, re.S | re.M)]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_bundle_goes_out_by_plain_http(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_bundle(Path("bundle"))
    new_key(Path("quality"))
    on_the_host, on_the_device = commands_of("Plain HTTP")
    *prepare, serve = map(shlex.split, on_the_host)
    download, install = map(shlex.split, on_the_device)
    for command in prepare:
        done(command)
    assert serve[:3] == ["python3", "-m", "http.server"]
    server = [sys.executable, "-u", *serve[1:-1], "0"]
    with subprocess.Popen(
        server, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    ) as http:
        try:
            assert http.stdout is not None
            (port,) = re.findall(r" port (\d+) ", http.stdout.readline())
            download = [word.replace(":8000/", f":{port}/") for word in download]
            done(download)
            done(install)
            version = current_version(Path("versions"))
            assert version is not None
            pack = Path("out/solar.hvq")
            content = bytearray(pack.read_bytes())
            content[content.index(b'"preset"') + 12] ^= 1
            pack.write_bytes(content)
            done(download)
            assert exit_code(*install[1:]) in (1, 2)
            assert current_version(Path("versions")) == version
        finally:
            http.kill()


def done(command: list[str]) -> None:
    if command[0] == "hvq-edge":
        assert exit_code(*command[1:]) == 0, command
    else:
        subprocess.run(command, check=True, timeout=HANG_SECONDS)


def test_the_pages_playbook_installs_as_the_page_does():
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.S | re.M)
    (play,) = yaml.safe_load(text)
    install = next(task for task in play["tasks"] if "ansible.builtin.command" in task)
    words = install["ansible.builtin.command"]["argv"]
    assert words[:3] == ["hvq-edge", "bundle", "install"]
    assert {word for word in words if word.startswith("--")} <= {
        "--into",
        "--require-signature",
        "--json",
    }


RULES = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'hvq_decisions_total{{instance="line2", camera="belt", verdict="reject"}}'
        values: '0+{rejects}x30'
      - series: 'hvq_decisions_total{{instance="line2", camera="belt", verdict="pass"}}'
        values: '0+60x30'
    alert_rule_test:
      - eval_time: 20m
        alertname: ManyRejects
        exp_alerts: {alerts}
"""
FIRED = """
          - exp_labels: {severity: page, instance: line2, camera: belt}
            exp_annotations: {summary: "line2: 25% of the parts at belt are rejected"}
"""


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(("rejects", "alerts"), [(20, FIRED), (10, "[]")])
def test_an_alert_comes_with_many_rejects_and_not_with_few(tmp_path, rejects, alerts):
    case = tmp_path / "case.yml"
    case.write_text(RULES.format(rules=FLEET / "alerts.yml", rejects=rejects, alerts=alerts))
    done = subprocess.run(
        [PROMTOOL, "test", "rules", case], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def as_given(text: str) -> str:
    """The file with the defaults of its variables, as Docker Compose would read it."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_compose_is_of_its_specification_and_mounts_what_there_is():
    merged = yaml.safe_dump(yaml.safe_load(as_given(COMPOSE_TEXT)))  # Compose merges << as well
    read = PyCompose.from_yaml(merged)
    read.validate()
    lines = {name for name in read.service_names() if name.startswith("line")}
    assert len(lines) == 3
    for name, service in COMPOSE["services"].items():
        assert set(service.get("depends_on", ())) <= set(COMPOSE["services"]), name
        for volume in service.get("volumes", ()):
            source = as_given(volume).split(":")[0]
            is_file = source.startswith("./") and source != "./bundles"
            assert (
                (FLEET / source).is_file()
                if is_file
                else source in {*COMPOSE["volumes"], "./bundles"}
            )
    (scraped,) = PROMETHEUS["scrape_configs"]
    (config,) = scraped["static_configs"]
    settings = load_stream_settings(FLEET / "line.toml")
    assert settings.page is not None
    assert (
        {target.split(":")[0] for target in config["targets"]} == lines == set(settings.page.names)
    )
    assert {target.split(":")[1] for target in config["targets"]} == {str(settings.page.port)}
    assert {COMPOSE["services"][line]["hostname"] for line in lines} == lines


def test_the_inspectors_script_uses_commands_and_options_that_there_are():
    text = (FLEET / "inspector.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    calls = re.findall(r"hvq-edge (stream|bundle install) (.*)", text)
    assert [name for name, _ in calls] == ["bundle install", "stream"]
    for name, rest in calls:
        command = typer.main.get_command(app)
        for word in name.split():
            command = command.commands[word]
        known = {one for param in command.get_params(click.Context(command)) for one in param.opts}
        known |= {"--no-display"}  # a second name of --display
        assert set(re.findall(r"--[a-z-]+", rest)) <= known


def test_the_images_file_is_linted_and_copies_what_is_sent_to_the_builder():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, FLEET / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    sent = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    }
    text = (FLEET / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name
            assert name in sent or any(str(above) in sent for above in Path(name).parents), name
