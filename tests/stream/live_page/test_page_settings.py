"""Settings of the live page: who needs a token, where it comes from, what is wrong with it."""

from __future__ import annotations

import re

import pytest
from helpers.live_line import Line
from helpers.paths import ROOT

from hvq_edge.errors import MissingCapability, SettingsError
from hvq_edge.stream.live_page.access import open_access
from hvq_edge.stream.live_page.settings import LivePageSettings


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "camera.example", ""])
def test_another_address_needs_a_token(host, tmp_path):
    with pytest.raises(SettingsError, match="give a token file"):
        LivePageSettings.of(host=host)
    assert not LivePageSettings.of(host=host, token_file=tmp_path / "token").loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_this_machine_needs_none(host):
    assert LivePageSettings.of(host=host).loopback


def test_every_wrong_setting_is_named():
    with pytest.raises(SettingsError, match=r"port: .*; colour: "):
        LivePageSettings.of(port=70000, colour="red")


def test_without_a_token_file_each_run_has_its_own_token():
    (first, made), (second, other) = (open_access(LivePageSettings()) for _ in range(2))
    assert first.reading_is_open
    assert first.is_token(made)
    assert not second.is_token(made)
    assert len(made) >= 32
    assert made != other


def test_with_a_token_file_reading_needs_it_too(tmp_path):
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    access, made = open_access(LivePageSettings(token_file=file))
    assert made == ""
    assert access.is_token("0123456789abcdef")
    assert not access.reading_is_open


@pytest.mark.parametrize("text", ["short\n", "", "two words that are long enough", "é" * 20])
def test_a_token_that_is_no_good_is_refused(tmp_path, text):
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(SettingsError, match="is not one line of at least 16") as caught:
        open_access(LivePageSettings(token_file=file))
    assert text.strip() == "" or text.strip() not in str(caught.value)


def test_a_token_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"gone cannot be read: No such file"):
        open_access(LivePageSettings(token_file=tmp_path / "gone"))


def test_the_missing_extra_is_named(monkeypatch):
    import sys

    from hvq_edge.stream.live_page.serve import serve

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with (
        pytest.raises(MissingCapability, match="uvicorn") as caught,
        serve(LivePageSettings(port=0), Line().view),
    ):
        pass
    assert "hvq-edge[factory]" in caught.value.next_step


def test_every_setting_is_in_the_docs():
    text = (ROOT / "docs/reference/line-settings.md").read_text(encoding="utf-8")
    section = text.split("## `[page]`")[1].split("\n## ")[0]
    keys = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(keys) == sorted(LivePageSettings.model_fields)
