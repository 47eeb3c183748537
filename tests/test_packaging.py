"""What a user gets from pip: one import package, complete, which works without PyTorch."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import EntryPoint, distribution, requires
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.project import PROJECT, needed_here, normalised
from helpers.without_torch import lacks_torch

from hvq_edge import __main__

SOURCES = ("hvq_edge", "export", "calibration")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what a wheel is built from: nothing is left in the real one."""
    folder = tmp_path_factory.mktemp("a checkout")
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def build(checkout: Path, out: Path) -> Path:
    """Build a wheel without network and at a stated time, as ``make dist`` does."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--no-index", "--wheel-dir", out, "."],
        cwd=checkout,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "deprecat" not in (done.stdout + done.stderr).lower()
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory) -> Path:
    """A copy has no git: its version says that nobody knows it."""
    built = build(checkout, tmp_path_factory.mktemp("built"))
    assert built.name.split("-")[1] == PROJECT["tool"]["setuptools_scm"]["fallback_version"]
    return built


def git(*arguments: str, cwd: Path) -> None:
    somebody = ["-c", "user.name=somebody", "-c", "user.email=", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *somebody, *arguments], cwd=cwd, check=True, capture_output=True)


def scm_version(checkout: Path) -> str:
    command = [sys.executable, "-m", "setuptools_scm"]
    done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.long
def test_the_same_files_give_the_same_bytes(checkout, wheel, tmp_path):
    again = build(checkout, tmp_path)
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


@pytest.fixture
def repository(tmp_path) -> Path:
    """One commit, with what says how the version is made."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in (".git_archival.txt", ".gitattributes", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    git("init", "--quiet", cwd=folder)
    git("add", ".", cwd=folder)
    git("commit", "--quiet", "-m", "A release", cwd=folder)
    return folder


def test_the_version_is_the_tag_and_after_it_names_the_commit(repository, tmp_path):
    """A clone without tags, as CI's may be, has a version all the same."""
    assert re.fullmatch(r"0\.0\.0\.dev1\+g[0-9a-f]+", scm_version(repository))
    git("tag", "v0.1.0", cwd=repository)
    assert scm_version(repository) == "0.1.0"
    git("commit", "--quiet", "--allow-empty", "-m", "A mend", cwd=repository)
    assert re.fullmatch(r"0\.1\.1\.dev1\+g[0-9a-f]+", scm_version(repository))
    shallow = ["clone", "--quiet", "--depth=1", "--no-tags", repository.as_uri(), "shallow"]
    git(*shallow, cwd=tmp_path)
    assert re.fullmatch(r"0\.0\.0\.dev1\+g[0-9a-f]+", scm_version(tmp_path / "shallow"))


def test_an_archive_that_git_makes_knows_its_tag(repository, tmp_path):
    """As hosts of repositories offer it: no history, but the file that git fills in."""
    git("tag", "v0.1.0", cwd=repository)
    git("archive", "--output", str(tmp_path / "all.tar"), "HEAD", cwd=repository)
    shutil.unpack_archive(tmp_path / "all.tar", tmp_path / "archive")
    assert scm_version(tmp_path / "archive") == "0.1.0"


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


# A device.


def base_packages() -> set[str]:
    """Return what the base dependencies bring here, followed through their own."""
    waiting, seen = list(PROJECT["project"]["dependencies"]), set()
    while waiting:
        requirement = waiting.pop()
        name = normalised(requirement)
        if name not in seen and needed_here(requirement):
            seen.add(name)
            waiting += requires(name) or []
    return seen


def test_the_wheel_with_the_base_packages_alone_judges_images(
    wheel, small_bundle, solar_cells, tmp_path
):
    """A new virtual environment into which they are linked: nothing else is there to import."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    for name in base_packages():
        package = distribution(name)
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            place = Path(str(package.locate_file(top)))
            if not (site / top).exists():
                (site / top).symlink_to(place)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)

    def on_the_device(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert "No module named 'torch'" in on_the_device("-c", "import torch").stderr
    image = next(solar_cells.glob("*/test/good/*.png"))
    command = ["-m", "hvq_edge", "predict", image, "--bundle", small_bundle]
    done = on_the_device(*command, "--backend", "onnxruntime")
    assert (done.returncode, "1 image: " in done.stdout) == (0, True), done
    assert on_the_device("-m", "hvq_edge", "demo").returncode == 3


@pytest.mark.parametrize(
    ("file", "passed_over"),
    [
        ("site-packages/hvq_edge/training/loop.py", True),
        ("site-packages/hvq_edge/runtime/cpu/torch_engine.py", True),
        ("site-packages/hvq_edge/stream/inspector.py", False),
        ("hvq-edge/tests/model/test_tiles.py", True),
    ],
)
def test_without_pytorch_a_test_is_passed_over_only_where_it_may_be_used(
    file, passed_over, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        exec(compile("import torch", file, "exec"))
    assert lacks_torch(caught.value) is passed_over
    assert not lacks_torch(ValueError("torch"))


# The shell.

ASKED = {
    "bash": """
        eval "$(_HVQ_EDGE_COMPLETE=source_bash hvq-edge)"
        COMP_WORDS=(hvq-edge bundle ro) COMP_CWORD=2
        _hvq_edge_completion hvq-edge && echo "${COMPREPLY[@]}"
    """,
    "zsh": """
        compdef() { : }; _arguments() { print -r -- "$@" }
        eval "$(_HVQ_EDGE_COMPLETE=source_zsh hvq-edge)"
        words=(hvq-edge bundle ro) CURRENT=3
        _hvq_edge_completion
    """,
    "fish": """
        _HVQ_EDGE_COMPLETE=source_fish hvq-edge | source
        complete --do-complete 'hvq-edge bundle ro'
    """,
}


@pytest.mark.parametrize("shell", ASKED)
def test_a_shell_completes_commands(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    clean = ["--no-config"] if shell == "fish" else ["-f"] if shell == "zsh" else ["--norc"]
    done = subprocess.run(
        [shell, *clean, "-c", ASKED[shell]],
        env=os.environ | {"PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "rollback" in done.stdout, done
    assert "install" not in done.stdout
