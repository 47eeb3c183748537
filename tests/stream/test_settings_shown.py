"""Settings of a stream as they are shown: no key, flag or fault repeats credentials."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import tomli_w
from helpers.credentials import BEGIN, END, FORMS, SECRETS
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from typer import Typer
from typer.testing import CliRunner

from hvq_edge.cli.stream import add_stream
from hvq_edge.errors import SettingsError
from hvq_edge.stream.settings import StreamSettings, load_stream_settings

app = Typer()
add_stream(app)


def test_print_config():
    arguments = ["--camera", "0", "--camera", "rtsp://u:s3cret@h/x", "--roi", "1,2,30,40"]
    result = CliRunner().invoke(
        app, [*arguments, "--k-of-n", "1/2", "--policy", "all", "--print-config"]
    )
    assert result.exit_code == 0, result.output
    assert "s3cret" not in result.output
    assert "".join(result.output.split()).count("roi=[1,2,30,40,]") == 2
    assert 'k_of_n = "1/2"' in result.output


def test_no_address_of_a_receiver_is_printed_with_its_credentials(tmp_path):
    file = tmp_path / "stream.toml"
    file.write_text(
        'out = "out"\nserver = "grpc://me:s3cret@triton:8001"\n[[cameras]]\ncamera = 0\n'
        '[sinks.webhook]\nurl = "https://me:s3cret@mes:8443/hooks/s3cret?key=s3cret"\n'
        '[sinks.opcua]\nurl = "opc.tcp://me:s3cret@plc:4840/s3cret"\nreject_node = "ns=2;i=3"\n'
    )
    printed = load_stream_settings(file).to_toml()
    assert "s3cret" not in printed
    for shown in ("https://mes:8443/...", "opc.tcp://plc:4840/...", "triton:8001"):
        assert shown in printed


def every_key(model: type[BaseModel], place: tuple[str | int, ...] = ()):
    """The place of each setting, and of one that is none in each table."""
    yield (*place, "zebra")
    for name, field in model.model_fields.items():
        kind = field.annotation
        kinds = [kind, *get_args(kind), *(one for arg in get_args(kind) for one in get_args(arg))]
        plain = [one for one in kinds if isinstance(one, type) and not get_args(one)]
        tables = [one for one in plain if issubclass(one, BaseModel)]
        if not tables:
            yield (*place, name)
        elif tuple in map(get_origin, kinds):
            yield from every_key(tables[0], (*place, name, 0))
        else:
            yield from every_key(tables[0], (*place, name))


KEYS = sorted(every_key(StreamSettings), key=str)


def planted(place: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """Settings that are right but for a value."""
    settings: dict[str, Any] = {"cameras": [{"camera": 0}], "out": "out"}
    settings["sinks"] = {
        "webhook": {"url": "https://mes/hook"},
        "opcua": {"url": "opc.tcp://plc:4840", "reject_node": "ns=2;i=3"},
        "mqtt": {"host": "broker"},
        "modbus": {"host": "plc"},
        "gpio": {"line": 3},
    }
    table: Any = settings
    for part in place[:-1]:
        if isinstance(part, int):
            table = table[part]
            continue
        table = table.setdefault(part, [{"name": "minor"}] if part == "grades" else {})
    table[place[-1]] = value
    return settings


def shown_of(settings: dict[str, Any], folder: Path) -> str:
    """What --print-config prints of them, or the fault."""
    file = folder / "stream.toml"
    file.write_text(tomli_w.dumps(settings))
    try:
        return load_stream_settings(file).to_toml()
    except SettingsError as error:
        return str(error)


@settings(max_examples=60, deadline=None)
@given(form=st.sampled_from(FORMS), place=st.sampled_from(KEYS), secret=SECRETS, many=st.booleans())
def test_no_credentials_are_printed_whatever_key_they_stand_at(
    form, place, secret, many, tmp_path_factory
):
    value = form.format(secret)
    folder = tmp_path_factory.getbasetemp()
    for given_settings in (
        planted(place, [value] if many else value),
        planted((*place[:-1], value), 3),
    ):
        shown = shown_of(given_settings, folder)
        assert BEGIN not in shown
        assert END not in shown


def test_every_setting_is_among_the_keys():
    for place in [
        ("cameras", 0, "name"),
        ("decision", "grades", 0, "name"),
        ("sinks", "opcua", "security"),
        ("sinks", "log", "head"),
        ("page", "token_file"),
        ("server",),
    ]:
        assert place in KEYS


def test_an_address_with_credentials_is_no_name_of_a_camera(tmp_path):
    shown = shown_of(planted(("cameras", 0, "name"), "rtsp://me:s3cret@h"), tmp_path)
    assert "cameras.0.name: looks like an address with credentials" in shown
    assert 'name = "Keyence: left"' in shown_of(
        planted(("cameras", 0, "name"), "Keyence: left"), tmp_path
    )


@pytest.mark.parametrize("table", ["mqtt", "modbus"])
def test_an_address_in_the_place_of_a_host_is_refused_and_not_repeated(tmp_path, table):
    file = tmp_path / "stream.toml"
    file.write_text(
        f'out = "out"\n[[cameras]]\ncamera = 0\n[sinks.{table}]\nhost = "mqtt://me:s3cret@h"\n'
    )
    with pytest.raises(SettingsError, match=f"sinks.{table}.host: must be a name") as raised:
        load_stream_settings(file)
    assert "s3cret" not in raised.value.cause
