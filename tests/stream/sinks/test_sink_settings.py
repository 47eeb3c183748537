"""The table [sinks] of a settings file."""

from __future__ import annotations

import re

import pytest
import tomli_w
from helpers.paths import ROOT

from hvq_edge.errors import SettingsError
from hvq_edge.stream.settings import load_stream_settings
from hvq_edge.stream.sinks.network.open_receivers import open_webhook
from hvq_edge.stream.sinks.sink_settings import SinkSettings, WebhookSettings, read_secret


def test_every_fault_of_the_settings_is_said_at_once(tmp_path):
    table = {
        "log": {"commit_ms": -1.0},
        "webhook": {"url": "ftp://x", "token_file": "a", "token_env": "b", "colour": 1},
        "mqtt": {"verdicts": ["maybe"], "host": "a", "tls": "yes"},
        "video": {"keep_days": 1.0},
        "modbus": {"host": "plc", "reject_coil": 4, "heartbeat_coil": 4},
        "gpio": {},
        "carrier_pigeon": {},
    }
    file = tmp_path / "line.toml"
    file.write_text(tomli_w.dumps({"sinks": table}), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_stream_settings(file, cameras=[0])
    said = caught.value.cause
    for key in (
        "log.commit_ms",
        "webhook.url",
        "webhook.colour",
        "mqtt.verdicts.0",
        "mqtt.tls",
        "video",
        "modbus",
        "gpio.line",
        "carrier_pigeon",
    ):
        assert f"- sinks.{key}: " in said, key
    assert f"settings are wrong in {file}" in said


def test_without_settings_nothing_goes_anywhere():
    settings = load_stream_settings(cameras=[0]).sinks
    assert settings == SinkSettings()
    assert [settings.webhook, settings.mqtt, settings.modbus, settings.gpio] == [None] * 4


def test_secrets_come_from_files_and_the_environment(tmp_path):
    file = tmp_path / "token"
    file.write_text(" sesame\n")
    assert read_secret("key", str(file)) == "sesame"
    assert read_secret("key", None, "TOKEN", {"TOKEN": "sesame"}) == "sesame"
    assert read_secret("key", None) is None
    with pytest.raises(SettingsError, match="TOKEN"):
        read_secret("key", None, "TOKEN", {})
    with pytest.raises(SettingsError, match="cannot read"):
        read_secret("key", str(tmp_path / "none"))


@pytest.mark.parametrize(
    "token", ["hunter2ä", "hunter\n2", "hunter 2", "hunter\x7f", "\ufeffhunter2"]
)
def test_a_token_that_no_header_holds_is_refused_at_the_start(tmp_path, token):
    """Not at the first delivery, which would fail for ever."""
    (tmp_path / "token").write_text(token, encoding="utf-8")
    settings = WebhookSettings(url="http://127.0.0.1:9", token_file=str(tmp_path / "token"))
    with pytest.raises(SettingsError, match="holds no token") as caught:
        open_webhook(settings)
    assert "hunter" not in str(caught.value)


def test_every_example_of_the_docs_is_valid(tmp_path):
    text = (ROOT / "docs/how-to/sinks.md").read_text(encoding="utf-8")
    examples = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    named = set()
    for example in examples:
        file = tmp_path / "line.toml"
        file.write_text(example, encoding="utf-8")
        named |= load_stream_settings(file, cameras=[0], inspects=False).sinks.model_fields_set
    assert named == set(SinkSettings.model_fields)


def test_every_setting_is_in_the_docs():
    text = (ROOT / "docs/reference/line-settings.md").read_text(encoding="utf-8")
    for name, field in SinkSettings.model_fields.items():
        (section,) = re.findall(rf"^## `\[sinks\.{name}\]`$(.*?)(?=^## )", text, re.M | re.S)
        for model in (field.annotation, *getattr(field.annotation, "__args__", ())):
            for key in getattr(model, "model_fields", {}):
                assert f"`{key}`" in section, f"{name}.{key}"
