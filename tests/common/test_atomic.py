"""Files and folders appear whole or not at all."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from helpers.patience import PATIENCE_SECONDS
from helpers.small_disk import in_private_mount
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.common.atomic import (
    atomic_file,
    atomic_folder,
    check_writable,
    output_error,
    sha256_of,
    write_text,
)
from hvq_edge.errors import OutputError


class AnyError(Exception):
    """Anything that may go wrong while a result is written."""


def break_off(context: AbstractContextManager[Path], error: type[BaseException]) -> None:
    with context as temporary:
        half = temporary / "model.onnx" if temporary.is_dir() else temporary
        half.write_text("half of the ne")
        raise error


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Files.


def test_a_file_appears_with_its_folders(tmp_path):
    write_text(tmp_path / "a" / "b é" / "run.json", "{}\n")
    assert (tmp_path / "a" / "b é" / "run.json").read_text() == "{}\n"
    assert names_in(tmp_path / "a" / "b é") == ["run.json"]


@pytest.fixture(params=[0o022, 0o027, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_the_umask_says_who_may_read(tmp_path, umask):
    """The quality manager opens the report that the inspector's account wrote, or nobody does."""
    write_text(tmp_path / "report.html", "")
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o666 & ~umask
    with atomic_folder(tmp_path / "bundle") as temporary:
        (temporary / "bundle.json").touch()
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o777 & ~umask
    assert (tmp_path / "bundle" / "bundle.json").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("error", [AnyError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "bundle.json"
    write_text(path, "old")
    with pytest.raises(error):
        break_off(atomic_file(path), error)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["bundle.json"]


def test_an_interrupted_first_write_leaves_nothing(tmp_path):
    with pytest.raises(AnyError):
        break_off(atomic_file(tmp_path / "new"), AnyError)
    assert names_in(tmp_path) == []


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="there is a folder of that name"):
        write_text(tmp_path / "out", "text")
    assert names_in(tmp_path) == ["out"]


def test_the_folder_one_is_in_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="there is a folder of that name") as raised:
        write_text(Path(), "text")
    assert raised.value.next_step
    with pytest.raises(OutputError, match="cannot be replaced"), atomic_folder(Path()):
        pytest.fail("the body must not run")
    assert names_in(tmp_path) == []


def test_a_file_does_not_take_the_place_of_a_pipe_or_a_device(tmp_path):
    """Whoever may write to /dev would take /dev/null from all programs."""
    os.mkfifo(tmp_path / "pipe")
    for name, to in {
        "null": os.devnull,
        "to pipe": "pipe",
        "folder": ".",
        "stdout": "/proc/self/exe",  # a plain file, as behind /dev/stdout of "> FILE"
    }.items():
        (tmp_path / name).symlink_to(to)
    before = names_in(tmp_path)
    for name in before:
        what = "a folder of that name" if name == "folder" else "a pipe or a device"
        for write in (check_writable, lambda path: write_text(path, "text")):
            with pytest.raises(OutputError, match=what):
                write(tmp_path / name)
    assert names_in(tmp_path) == before
    assert (tmp_path / "pipe").is_fifo()
    assert all((tmp_path / name).is_symlink() for name in before if name != "pipe")


def test_a_link_to_a_file_makes_way(tmp_path):
    write_text(tmp_path / "elsewhere", "kept")
    for name, to in {"link": "elsewhere", "dangling": "none"}.items():
        (tmp_path / name).symlink_to(to)
        write_text(tmp_path / name, "text")
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_text() == "text"
    assert names_in(tmp_path) == ["dangling", "elsewhere", "link"]
    assert (tmp_path / "elsewhere").read_text() == "kept"


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")))
def test_what_is_written_is_what_is_read(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "text"
    write_text(path, text)
    assert path.read_text(encoding="utf-8") == text


# Folders.


def test_a_folder_takes_the_place_of_the_former_one(tmp_path):
    path = tmp_path / "runs" / "bundle"
    for version in ("first", "second"):
        with atomic_folder(path) as temporary:
            assert names_in(temporary) == []
            (temporary / version).write_text(version)
    assert names_in(path) == ["second"]
    assert names_in(path.parent) == ["bundle"]


@pytest.mark.parametrize("error", [AnyError, KeyboardInterrupt])
def test_an_interrupted_folder_leaves_the_old_one(tmp_path, error):
    path = tmp_path / "bundle"
    with atomic_folder(path) as temporary:
        (temporary / "model.onnx").write_text("old")
    with pytest.raises(error):
        break_off(atomic_folder(path), error)
    assert (path / "model.onnx").read_text() == "old"
    assert names_in(tmp_path) == ["bundle"]


def test_the_former_folder_comes_back_when_the_last_rename_fails(tmp_path, monkeypatch):
    path = tmp_path / "bundle"
    with atomic_folder(path) as temporary:
        (temporary / "model.onnx").write_text("old")
    rename = Path.replace

    def fail_for_the_new_folder(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_new_folder)
    with pytest.raises(OutputError), atomic_folder(path) as temporary:
        (temporary / "model.onnx").write_text("new")
    assert (path / "model.onnx").read_text() == "old"
    assert names_in(tmp_path) == ["bundle"]


def test_a_folder_does_not_take_the_place_of_a_file(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with (
        pytest.raises(OutputError, match="a file, not a folder"),
        atomic_folder(tmp_path / "notes.txt"),
    ):
        pytest.fail("the body must not run")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert names_in(tmp_path) == ["notes.txt"]


# A kill at any moment: no handler of ours runs.


@pytest.mark.parametrize(
    ("context", "write"),
    [
        ("atomic_file(path)", "temporary.write_text('half')"),
        ("atomic_folder(path)", "(temporary / 'model.onnx').write_text('half')"),
    ],
)
def test_a_kill_leaves_the_old_result(tmp_path, context, write):
    path = tmp_path / "result"
    if "folder" in context:
        with atomic_folder(path) as temporary:
            (temporary / "model.onnx").write_text("old")
    else:
        write_text(path, "old")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom hvq_edge.common.atomic import *\n"
        f"path = Path(sys.argv[1])\nwith {context} as temporary:\n    {write}\n"
        "    print('written', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.kill()
    process.stdout.close()
    assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    old = path / "model.onnx" if path.is_dir() else path
    assert old.read_text() == "old"


# Disks that refuse.


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "no space is left on the disk"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission was denied"),
        (errno.ENOTDIR, "a part of that path is a file"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_each_refusal_is_said_with_a_remedy(code, said):
    error = output_error(Path("runs/latest"), OSError(code, os.strerror(code)))
    assert "runs/latest" in error.cause
    assert said in error.cause
    assert error.next_step
    assert error.exit_code == 2


def test_a_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "file" / "run.json", "{}")


FILL = """
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from hvq_edge.common.atomic import atomic_file, atomic_folder, write_text
from hvq_edge.errors import OutputError
disk = Path(sys.argv[1])
write_text(disk / "report.html", "old")
with atomic_folder(disk / "bundle") as folder:
    (folder / "old").touch()
def fill_file():
    with atomic_file(disk / "report.html") as temporary:
        temporary.write_bytes(bytes(1 << 20))
def fill_folder():
    with atomic_folder(disk / "bundle") as folder:
        (folder / "model.onnx").write_bytes(bytes(1 << 20))
for fill in fill_file, fill_folder:
    try:
        fill()
    except OutputError as error:
        print(error.cause.partition(": ")[2])
print((disk / "report.html").read_text())
print(*sorted(str(path.relative_to(disk)) for path in disk.rglob("*")))
"""


def test_a_full_disk_keeps_the_old_results(tmp_path):
    printed = in_private_mount("size=64k", FILL, tmp_path)
    full = "no space is left on the disk."
    assert printed.splitlines() == [full, full, "old", "bundle bundle/old report.html"]


WRITE = """
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from hvq_edge.common.atomic import atomic_folder, write_text
from hvq_edge.errors import OutputError
disk = Path(sys.argv[1])
def folder():
    with atomic_folder(disk / "bundle"):
        print("the body ran")
for write in (lambda: write_text(disk / "new" / "run.json", "{}")), folder:
    try:
        write()
    except OutputError as error:
        print(error.cause.partition(": ")[2])
"""


def test_a_read_only_disk_is_said(tmp_path):
    printed = in_private_mount("size=64k,ro", WRITE, tmp_path)
    assert printed.splitlines() == ["the file system is read-only."] * 2


# Hashes.


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_the_hash_is_of_the_whole_file(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
