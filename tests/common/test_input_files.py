"""Settings and records that somebody else wrote: never a traceback, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.common.records import Strict, read_record
from hvq_edge.common.toml_file import read_toml
from hvq_edge.errors import BundleError, SettingsError


class Record(Strict):
    name: str


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        (".".join("a" * 1500) + " = 1", "nested too deeply"),
        ("a = " + "9" * 5000, "is not valid TOML"),
        ("[[b]]\na = 0x" + "f" * 5000, r"b.0.a in .* is a number of more than 64 bits"),
        ("a = [1, -0o" + "7" * 6000 + "]", "is not valid TOML"),
        ("a = [1, 0o" + "7" * 6000 + "]", r"a.1 in .* is a number of more than 64 bits"),
        ("a = 9223372036854775808", r"a in .* is a number of more than 64 bits"),
        ('[[cameras]]\nsource = "a\\u0000b"', "cameras.0.source in .* has a NUL character"),
        ('"a\\u0000b" = 1', r"a\\0b in .* has a NUL character"),
        ("a = ", "is not valid TOML"),
        (b"a = '\xff'", "is not valid TOML"),
    ],
)
def test_settings_that_cannot_be_read_are_said(tmp_path, content, said):
    file = tmp_path / "settings.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=said) as caught:
        read_toml(file, "--settings")
    assert caught.value.next_step


@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_file_is_settings_or_an_error_of_ours(content, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(content)
    try:
        found = read_toml(file, "--settings")
    except SettingsError:
        return
    assert isinstance(found, dict)


@pytest.mark.parametrize(
    "content", ["[" * 5000, '{"name": 1' + "0" * 5000 + "}", "", '{"name": "\\ud800"}', "null"]
)
def test_records_that_cannot_be_read_are_said(tmp_path, content):
    file = tmp_path / "record.json"
    file.write_text(content)
    with pytest.raises(BundleError, match="is not a record"):
        read_record(file, Record, BundleError, kind="a record", next_step="write it again")


def test_a_path_that_none_can_be_is_said():
    with pytest.raises(BundleError, match="it is no path of a file"):
        read_record(Path("a\0b"), Record, BundleError, kind="a record", next_step="name another")
    with pytest.raises(SettingsError, match="null"):
        read_toml(Path("a\0b"), "--settings")
