"""Credentials are taken out of whatever is shown, and nothing else is."""

from __future__ import annotations

import pytest
from helpers.credentials import BEGIN, END, FORMS, SECRETS
from hypothesis import given

from hvq_edge.common.redaction import redacted, redacted_message
from hvq_edge.doctor.finding import CheckResult
from hvq_edge.errors import HvqEdgeError
from hvq_edge.stream.sinks.faults import SinkFault
from hvq_edge.stream.sources.source import lost


@pytest.mark.parametrize("form", FORMS)
@given(secret=SECRETS)
def test_no_value_is_shown_with_its_credentials(form, secret):
    shown = redacted(form.format(secret))
    assert BEGIN not in shown
    assert END not in shown
    assert redacted(shown) == shown


@pytest.mark.parametrize("form", FORMS)
def test_no_message_repeats_them(form):
    value = form.format(f"{BEGIN}-{END}")
    said = [
        redacted_message(f"cannot open '{value}': no answer"),
        str(HvqEdgeError(f"cannot open {value}: no answer.")),
        HvqEdgeError(value).cause,
        HvqEdgeError("cause", next_step=f"hvq-edge log verify {value}").next_step,
        CheckResult("bundle", "note", f"{value} is none").found,
        lost(0, f"{value}: no answer").fault,
    ]
    fault = SinkFault("webhook", lambda _, cause: said.append(cause))
    fault.set(f"OSError: {value}")
    said.append(fault.cause)
    assert len(said) == 8
    for text in said:
        assert BEGIN not in text
        assert END not in text


@pytest.mark.parametrize(
    "plain",
    [
        "rtsp://10.0.0.5:554/line",
        "http://[fe80::1]:8642",
        "opc.tcp://plc:4840",
        "ns=2;s=Line.Reject",
        "Keyence: left",
        "anna@line2",
        "runs/latest/bundle",
        "a frame of 4 x 3 pixels: at 12:30 it was lost",
        "cameras.0.name: must be a string (given: 3)",
        "sinks.mqtt.password_file: no such file",
        "Basic256Sha256,SignAndEncrypt,cert.pem,key.pem",
        "Teil 4, 20 °C = 68 °F",
    ],
)
def test_what_holds_none_stays_as_it_is(plain):
    assert redacted(plain) == plain
    assert redacted_message(plain) == plain
