"""`hvq-edge stream` that cannot run: what is wrong is said, with the remedy."""

from __future__ import annotations

import pytest
from helpers.commands import exit_code
from helpers.graphs import save_bundle
from helpers.stream_command import bundle, run, video  # noqa: F401  # fixtures

from hvq_edge.errors import BundleError, InputError, MissingCapability, OutputError, SettingsError


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        (["--camera", "63"], MissingCapability, 3),
        (["--camera", "nothing.mp4"], InputError, 2),
        (["--camera", "0", "--policy", "newest"], SettingsError, 2),
        (["--camera", "0", "--precision", "int4"], SettingsError, 2),
        (["--camera", "0", "--category", "bolt"], InputError, 2),
    ],
)
def test_errors(bundle, arguments, error, code):
    result = run("--bundle", bundle.path, *arguments, fails=error)
    assert result.exception.exit_code == code
    assert result.exception.next_step
    assert result.stdout == ""


def test_no_bundle_and_changed_bundle_are_found_before_the_camera(tmp_path, video):
    run("--bundle", tmp_path / "none", "--camera", "63", fails=BundleError)
    changed = save_bundle(tmp_path / "changed")
    model = changed.path / "model.fp32.onnx"
    content = bytearray(model.read_bytes())
    content[100] ^= 1
    model.write_bytes(content)
    result = run("--bundle", changed.path, "--camera", "63", fails=BundleError)
    assert "SHA-256" in result.exception.cause


def test_out_that_cannot_be_written_to(bundle, video, tmp_path):
    (tmp_path / "file").touch()
    run(
        *("--bundle", bundle.path, "--camera", video, "--out", tmp_path / "file" / "out"),
        fails=OutputError,
    )


def test_display_without_a_screen(bundle, video, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    run("--bundle", bundle.path, "--camera", video, "--display", fails=MissingCapability)


@pytest.mark.parametrize(
    ("arguments", "said", "remedy"),
    [
        (
            ["--page", "127.0.0.1:8700"],
            "--page takes no address, and 127.0.0.1:8700 was given.",
            "give --page-host 127.0.0.1 --page-port 8700",
        ),
        (["--page=:8700"], "--page takes no address", "give --page-port 8700"),
        (["--page", "8700", "--no-video"], "--page takes no address", "give --page-port 8700"),
        (
            ["--page-port", "line-3.plant:8700"],
            "--page-port takes a port alone",
            "give --page-host line-3.plant --page-port 8700",
        ),
        (
            ["--page-host=[::1]:8700"],
            "--page-host takes a host alone",
            "give --page-host ::1 --page-port 8700",
        ),
        (
            ["--trigger-port", "0.0.0.0:9000"],
            "--trigger-port takes a port alone",
            "give --trigger-port 9000",
        ),
    ],
)
def test_an_address_for_a_flag_that_takes_none_is_told_where_it_belongs(
    capsys, arguments, said, remedy
):
    assert exit_code("stream", "--camera", "a.avi", *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"Error: {said}" in printed.err
    assert f"Next:  {remedy}\n" in printed.err


@pytest.mark.parametrize("host", ["::1", "fe80::1:8700", "127.0.0.1", "localhost"])
def test_a_host_alone_is_no_address(capsys, host):
    arguments = ["--camera", "a.avi", "--page-host", host, "--page-token-file", "t"]
    exit_code("stream", *arguments, "--print-config")
    assert "takes a host alone" not in capsys.readouterr().err
