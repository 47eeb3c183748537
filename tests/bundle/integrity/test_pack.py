"""A packed bundle: the same bytes every time, and nothing but a bundle comes out of one."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers.graphs import save_bundle
from helpers.patience import PATIENCE_SECONDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvq_edge.bundle.integrity.content import look
from hvq_edge.bundle.integrity.keys import new_key
from hvq_edge.bundle.integrity.pack import pack_bundle, unpack_bundle
from hvq_edge.bundle.integrity.signature import require_signature, sign_bundle
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.cli.app import main
from hvq_edge.errors import BundleError, GateFailed, OutputError


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = save_bundle(tmp_path_factory.mktemp("source") / "bundle").path
    (folder / "verify").mkdir()
    (folder / "verify" / "Bild ü.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def packed(source) -> bytes:
    pack_bundle(source, source.with_name("b.hvq"))
    return source.with_name("b.hvq").read_bytes()


@pytest.fixture
def file(packed, tmp_path) -> Path:
    path = tmp_path / "in" / "b.hvq"
    path.parent.mkdir()
    path.write_bytes(packed)
    return path


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_comes_out_is_what_went_in(source, file, tmp_path):
    bundle = unpack_bundle(file, tmp_path / "out")
    assert content_of(tmp_path / "out") == content_of(source)
    assert look(bundle).faults == ()
    assert "verify/Bild ü.json" in bundle.manifest.files


def test_the_same_bundle_gives_the_same_bytes(source, packed, tmp_path):
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    for number, path in enumerate(copy.rglob("*")):
        os.utime(path, (number, number))
        path.chmod(0o700)
    pack_bundle(copy, tmp_path / "copy.hvq")
    assert (tmp_path / "copy.hvq").read_bytes() == packed


def test_a_signed_bundle_stays_signed(source, tmp_path):
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    public = new_key(tmp_path / "key")
    sign_bundle(copy, tmp_path / "key")
    (copy / "engines").mkdir()
    (copy / "engines" / "built later.plan").write_bytes(b"plan")
    assert pack_bundle(copy, tmp_path / "b.hvq").left_behind == ("engines/built later.plan",)
    unpack_bundle(tmp_path / "b.hvq", tmp_path / "out")
    require_signature(tmp_path / "out", public, engines=True)
    (copy / "added").write_text("")
    with pytest.raises(GateFailed, match="added was added"):
        pack_bundle(copy, tmp_path / "c.hvq")
    assert not (tmp_path / "c.hvq").exists()


# Archives that were made to harm.


def rewritten(packed: bytes, change) -> bytes:
    """The archive with each member passed through ``change(info, content) -> pairs``."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed)) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            for changed, content in change(info, old.read(info)):
                new.writestr(changed, content)
    return target.getvalue()


def with_member(packed: bytes, info: zipfile.ZipInfo, content: bytes) -> bytes:
    """One member more, and a manifest that names it rightly."""
    import hashlib

    def change(old: zipfile.ZipInfo, data: bytes):
        if old.filename == "bundle.json":
            manifest = json.loads(data)
            digest = hashlib.sha256(content).hexdigest()
            manifest["files"][info.filename] = {"sha256": digest, "bytes": len(content)}
            data = json.dumps(manifest).encode()
            old.file_size = len(data)
            yield info, content
        yield old, data

    return rewritten(packed, change)


def refused(content: bytes, folder: Path, match: str | None = None) -> str:
    folder.mkdir(exist_ok=True)
    file = folder / "evil.hvq"
    file.write_bytes(content)
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(BundleError, match=match) as caught:
        unpack_bundle(file, folder / "out")
    assert sorted(folder.parent.rglob("*")) == before, "something was written"
    return caught.value.cause


@pytest.mark.parametrize(
    "name",
    ["../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:evil", "a//b", "./a", "a/", "\x1b[2J"],
)
def test_a_path_that_leads_elsewhere(name, packed, tmp_path):
    content = with_member(packed, zipfile.ZipInfo(name), b"evil")
    assert "leads elsewhere" in refused(content, tmp_path / "in")


def test_a_name_cut_at_a_nul(packed, tmp_path):
    content = with_member(packed, zipfile.ZipInfo("aXevil"), b"evil").replace(b"aXevil", b"a\0evil")
    refused(content, tmp_path / "in")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_a_link_or_a_device(kind, packed, tmp_path):
    info = zipfile.ZipInfo("evil")
    info.external_attr = (kind | 0o777) << 16
    content = with_member(packed, info, b"/etc/passwd")
    assert "no plain file" in refused(content, tmp_path / "in")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(packed, tmp_path):
    def twice(info, content):
        yield info, content
        yield info.filename, content

    assert "two members" in refused(rewritten(packed, twice), tmp_path / "in")


def test_a_bomb(packed, tmp_path):
    bomb = zipfile.ZipInfo("zeros")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    content = with_member(packed, bomb, bytes(50_000_000))
    assert len(content) < 1_000_000
    assert "compressed" in refused(content, tmp_path / "in")


def test_members_that_lie_upon_each_other(packed, tmp_path):
    """Ten directory entries for one stretch of bytes: ten times as much would come out."""
    names = [f"zeros{number}" for number in range(10)]
    content = packed
    for name in names:
        content = with_member(content, zipfile.ZipInfo(name), bytes(100_000))
    archive = zipfile.ZipFile(io.BytesIO(content))
    first = archive.getinfo(names[0])
    cut = io.BytesIO()
    with zipfile.ZipFile(cut, "w") as new:
        for info in archive.infolist():
            if info.filename not in names[1:]:
                new.writestr(info, archive.read(info))
        for name in names[1:]:
            entry = zipfile.ZipInfo(name)
            entry.header_offset = new.getinfo(names[0]).header_offset
            entry.file_size = entry.compress_size = first.file_size
            entry.CRC = first.CRC
            new.filelist.append(entry)
            new.NameToInfo[name] = entry
        new._didModify = True
    refused(cut.getvalue(), tmp_path / "in")


def test_a_member_more_or_less_than_the_manifest(packed, tmp_path):
    def more(info, content):
        yield info, content
        if info.filename == "bundle.json":
            yield "extra", b"x"

    assert "extra is not in its manifest" in refused(rewritten(packed, more), tmp_path / "in")

    def less(info, content):
        if info.filename != "model.fp32.onnx":
            yield info, content

    assert "model.fp32.onnx is missing" in refused(rewritten(packed, less), tmp_path / "in")

    def none(info, content):
        if info.filename != "bundle.json":
            yield info, content

    assert "no bundle.json" in refused(rewritten(packed, none), tmp_path / "in")


def test_other_bytes_of_the_same_length(packed, tmp_path):
    def other(info, content):
        yield info, content[::-1] if info.filename == "model.fp32.onnx" else content

    assert "model.fp32.onnx was changed" in refused(rewritten(packed, other), tmp_path / "in")


def test_a_manifest_that_is_none(packed, tmp_path):
    def other(info, content):
        yield info.filename, b"{}" if info.filename == "bundle.json" else content

    assert "none that this version reads" in refused(rewritten(packed, other), tmp_path / "in")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(cut=st.floats(0, 0.9999))
def test_a_file_cut_short(cut, packed, tmp_path):
    refused(packed[: int(cut * len(packed))], tmp_path / "in")


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.floats(0, 0.99999), byte=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_harmless(place, byte, packed, source, tmp_path):
    """Some bytes of a zip archive carry nothing; whatever comes out is the bundle that went in."""
    content = bytearray(packed)
    content[int(place * len(content))] ^= byte
    (tmp_path / "b.hvq").write_bytes(content)
    out = tmp_path / "out"
    try:
        unpack_bundle(tmp_path / "b.hvq", out)
    except BundleError:
        assert not out.exists()
    else:
        assert content_of(out) == content_of(source)
        shutil.rmtree(out)
    assert {path.name for path in tmp_path.iterdir()} <= {"b.hvq", "in"}


def test_no_archive_at_all(tmp_path):
    refused(b"hello", tmp_path / "in", "no packed bundle")
    refused(b"", tmp_path / "in", "no packed bundle")
    with pytest.raises(BundleError, match="no file"):
        unpack_bundle(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(BundleError, match="no packed bundle"):
        unpack_bundle(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("out", ["bundle.json", "x.hvq", "reports/x.hvq", "../copy/x.hvq"])
def test_a_bundle_is_not_packed_into_itself(source, tmp_path, out):
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    before = content_of(copy)
    with pytest.raises(OutputError, match="in the bundle itself"):
        pack_bundle(copy, copy / out)
    assert content_of(copy) == before


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "b.hvq")
    code = "import sys; from hvq_edge.cli.app import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "bundle", "unpack", tmp_path / "b.hvq", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 2
    assert "it is a pipe or a device" in done.stderr
    assert not (tmp_path / "out").exists()


def test_packing_that_is_ended_by_sigterm_leaves_nothing(source, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    monkeypatch.setattr(
        "hvq_edge.bundle.integrity.pack.open_plain", lambda _: signal.raise_signal(signal.SIGTERM)
    )
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        main(["bundle", "pack", str(copy), "-o", str(tmp_path / "b.hvq")])
    assert caught.value.code == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_folder_that_is_there_is_left_alone(file, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(OutputError, match="exists"):
        unpack_bundle(file, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_pack_and_unpack_from_the_command_line(source, file, tmp_path, capsys, monkeypatch):
    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        return int(caught.value.code or 0)

    monkeypatch.chdir(tmp_path)
    copy = Path(shutil.copytree(source, tmp_path / "bundle"))
    assert run("bundle", "pack", copy, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["bytes"] == file.stat().st_size
    assert (tmp_path / "bundle.hvq").read_bytes() == file.read_bytes()
    new_key(tmp_path / "key")
    assert run("bundle", "unpack", file, "out", "--require-signature", "key.pub") == 1
    assert "is not signed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run("bundle", "unpack", file, "out") == 0
    assert open_bundle(tmp_path / "out").manifest.preset == "tiny"
