"""What a user gets from pip: one import package, complete, and pins that hold."""

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import EntryPoint, packages_distributions, requires, version
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.patience import PATIENCE_SECONDS

from hvq_edge import __main__
from hvq_edge.common.extras import EXTRA_OF

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = ("hvq_edge", "export", "calibration")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy without network: nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("a checkout")
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--no-index", "--wheel-dir", "out", "."], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "deprecat" not in (done.stdout + done.stderr).lower()
    (built,) = (folder / "out").glob("*.whl")
    return built


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_command_and_the_module_are_the_same():
    scripts = PROJECT["project"]["scripts"]
    assert EntryPoint("hvq-edge", scripts["hvq-edge"], "").load() is __main__.main


def test_the_wheel_holds_every_source_file(wheel):
    """A package missing from pyproject.toml works in the checkout and fails at the user's."""
    expected = set()
    for name in SOURCES:
        inside = Path() if name == "hvq_edge" else Path("hvq_edge")
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add((inside / path.relative_to(ROOT)).as_posix())
    packaged = {name for name in names_in(wheel) if ".dist-info/" not in name}
    assert packaged == expected
    assert {"hvq_edge/py.typed", "hvq_edge/export/__init__.py"} <= packaged
    assert any(re.fullmatch(r"hvq_edge/evaluation/\w+\.html", name) for name in packaged)


def test_the_wheel_puts_one_name_into_site_packages(wheel):
    tops = {name.split("/")[0] for name in names_in(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"hvq_edge"}


def test_the_wheel_carries_its_licence(wheel):
    licence = next(name for name in names_in(wheel) if name.endswith("licenses/LICENSE"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_imports_from_its_own_place(wheel, tmp_path):
    """Without the checkout, the parts that live beside `hvq_edge` are inside it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import hvq_edge.export, hvq_edge.calibration, hvq_edge.bundle.manifest as b\n"
        "print(hvq_edge.export.__file__, hvq_edge.calibration.__file__, b.__file__, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    folder = tmp_path / "hvq_edge"
    assert [Path(line) for line in done.stdout.splitlines()] == [
        folder / "export" / "__init__.py",
        folder / "calibration" / "__init__.py",
        folder / "bundle" / "manifest.py",
    ]


@pytest.mark.parametrize("place", ["the checkout", "elsewhere"])
def test_the_installation_imports_from_anywhere(place, tmp_path):
    code = "import hvq_edge.export, hvq_edge.calibration; print(hvq_edge.export.__doc__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT if place == "the checkout" else tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "ONNX" in done.stdout


# Pins.

PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+?)(?: ; (?P<marker>.+))?")


def pins() -> list[re.Match[str]]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [(line, PIN.fullmatch(line)) for line in lines if line and not line.startswith("#")]
    assert [line for line, match in found if match is None] == []
    return [match for _, match in found if match]


def normalised(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name
    return re.sub(r"[-_.]+", "-", name[0]).lower()


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


def needed_here(requirement: str) -> bool:
    from packaging.requirements import Requirement

    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate({"extra": ""})


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
