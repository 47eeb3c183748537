"""What a release rests on: workflows, the changelog, the images' version, pins that hold."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

import pytest
import yaml
from helpers.paths import ROOT
from helpers.patience import PATIENCE_SECONDS
from helpers.project import PROJECT, needed_here, normalised

from hvq_edge.common.extras import EXTRA_OF

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_actionlint_finds_nothing():
    actionlint = Path(sys.executable).with_name("actionlint")
    done = subprocess.run(
        [actionlint, *WORKFLOWS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_calls_is_there(path):
    """Its targets of make, its steps of packages.sh, and an action of one version."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = subprocess.run(
        [ROOT / "tests" / "packages.sh", "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    steps = [step for job in jobs.values() for step in job.get("steps", [])]
    assert [
        one for one in steps if not re.search(r"@(v\d+|release/v\d+)$", one.get("uses", "@v1"))
    ] == []
    for line in "\n".join(step.get("run", "") for step in steps).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), line
    for job in jobs.values():
        matrix = job.get("strategy", {}).get("matrix", {})
        named = [*matrix.get("steps", []), *(one["steps"] for one in matrix.get("include", []))]
        assert set(" ".join(named).split()) <= set(listed)
        supported = {
            line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if "3." in line
        }
        assert set(matrix.get("python", supported)) == supported


def test_the_changelog_has_each_version_with_its_date_and_link():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](.*)$", text, re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert all(re.fullmatch(r" - \d{4}-\d\d-\d\d", date) for _, date in headings[1:])
    links = re.findall(r"^\[(.+?)\]: \S+$", text, re.MULTILINE)
    assert [name for name, _ in headings] == links
    notes = ["make", "notes", f"VERSION={headings[1][0]}"]
    done = subprocess.run(notes, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "### Added" in done.stdout
    assert "## [" not in done.stdout
    assert subprocess.run([*notes[:2], "VERSION=9"], cwd=ROOT, capture_output=True).returncode


@pytest.mark.parametrize("image", ["Dockerfile.jetson", "examples/fleet/Dockerfile"])
def test_an_image_is_told_its_version(image):
    text = (ROOT / image).read_text(encoding="utf-8")
    unknown = PROJECT["tool"]["setuptools_scm"]["fallback_version"]
    assert f"\nARG VERSION={unknown}\n" in text
    assert 'RUN SETUPTOOLS_SCM_PRETEND_VERSION_FOR_HVQ_EDGE="${VERSION}" ' in text


# Pins.

PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+?)(?: ; (?P<marker>.+))?")


def pins() -> list[re.Match[str]]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [(line, PIN.fullmatch(line)) for line in lines if line and not line.startswith("#")]
    assert [line for line, match in found if match is None] == []
    return [match for _, match in found if match]


def applies(marker: str | None) -> bool:
    if marker is None:
        return True
    match = re.fullmatch(r"python_version (<|>=) '3\.(\d+)'", marker)
    assert match, f"a marker that this test does not know: {marker}"
    older = sys.version_info < (3, int(match[2]))
    return older if match[1] == "<" else not older


def test_each_package_has_one_pin_for_this_python():
    names = [pin["name"] for pin in pins() if applies(pin["marker"])]
    assert names == sorted(set(names))


@pytest.mark.parametrize(
    "extra", ["train", "heic", "demo", "rtx", "factory", "server", "codes", "test"]
)
def test_all_that_is_installed_is_pinned(extra):
    """Followed through every dependency's own dependencies, as installed here."""
    pinned = {pin["name"]: pin["version"] for pin in pins() if applies(pin["marker"])}
    project = PROJECT["project"]
    waiting = [*project["dependencies"], *project["optional-dependencies"][extra]]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = normalised(requirement)
        by_torch = name.startswith(("nvidia-", "cuda-", "triton"))  # torch pins its CUDA packages
        if name in seen or by_torch or not needed_here(requirement):
            continue
        seen.add(name)
        assert name in pinned, f"{name} is installed but constraints.txt does not pin it"
        assert version(name).partition("+")[0] == pinned[name], name
        waiting += requires(name) or []


def test_no_pin_names_a_local_build():
    """A CPU build of PyTorch satisfies the plain pin; the other way round pip finds nothing."""
    assert [pin[0] for pin in pins() if "+" in pin["version"]] == []
    assert any(pin["name"] == "torch" and pin["version"] == "2.13.0" for pin in pins())


def test_each_optional_package_has_its_extra_named_when_it_is_missing():
    extras = PROJECT["project"]["optional-dependencies"]
    distributions = packages_distributions()
    for module, extra in EXTRA_OF.items():
        names = {normalised(name) for name in distributions[module]}
        assert names & {normalised(requirement) for requirement in extras[extra]}, module
    expected = {
        normalised(item)
        for extra in ("train", "heic", "demo", "factory", "server", "codes")
        for item in extras[extra]
    }
    assert len(EXTRA_OF) == len(expected)


@pytest.mark.parametrize(
    ("pip_audit", "code", "said"),
    [
        ("echo No known vulnerabilities found", 0, "audit: no known vulnerability"),
        ("echo Found 1 known vulnerability in 1 package; echo h11 0.15; exit 1", 2, "h11 0.15"),
        (
            "echo Trying; echo no route to the host; exit 1",
            0,
            "audit: NOT RUN: no route to the host",
        ),
        (None, 0, "audit: NOT RUN: no such package"),
        (
            "echo No known vulnerabilities found; echo a could not be audited: a; "
            "echo b could not be audited: b",
            0,
            "audit: NOT RUN for 2 packages: a could not be audited: a",
        ),
    ],
)
def test_the_audit_fails_for_what_it_finds_and_says_when_it_cannot_run(
    tmp_path, pip_audit, code, said
):
    """With programs in the place of pip and pip-audit, which need the network."""
    installs = "exit 0" if pip_audit else "echo no such package; exit 1"
    scripts = {"python": installs, "pip-audit": pip_audit or "echo never; exit 1"}
    made = "".join(
        f"printf '#!/bin/sh\\n{text}\\n' > $3/bin/{name}; chmod +x $3/bin/{name}; "
        for name, text in scripts.items()
    )
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nmkdir -p $3/bin; {made}\n")
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = subprocess.run(
        ["make", "audit", f"PYTHON={python}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert (done.returncode, said in done.stdout) == (code, True), done


@pytest.mark.parametrize("page", ["Dockerfile.jetson", "docs/how-to/jetson.md"])
def test_a_jetson_gets_the_base_dependencies_without_opencv(page):
    """Listed by hand there, because pip would put its OpenCV before the system's."""
    text = (ROOT / page).read_text(encoding="utf-8")
    expected = {
        requirement.partition(";")[0].strip() for requirement in PROJECT["project"]["dependencies"]
    }
    expected = {item for item in expected if not item.startswith(("opencv-python", "openvino"))}
    expected = {f"{item},<2" if item.startswith("numpy") else item for item in expected}
    if page == "Dockerfile.jetson":  # whose health check asks the live page
        served_by = PROJECT["project"]["optional-dependencies"]["factory"]
        expected |= {
            item for item in served_by if item.startswith(("fastapi", "starlette", "uvicorn"))
        }
    assert (
        set(re.findall(r"""["']((?:tomli-w|[a-z0-9]+)>=[\d.]+(?:,<\d+)?)["']""", text)) == expected
    )
