"""Credentials are taken out of whatever is shown, and nothing else is."""

from __future__ import annotations

import pytest
from helpers.credentials import BEGIN, END, FORMS, SECRETS
from hypothesis import example, given
from hypothesis import strategies as st

from hvq_edge.common.redaction import HIDDEN, redacted, redacted_message, shown_server
from hvq_edge.doctor.finding import CheckResult
from hvq_edge.errors import HvqEdgeError
from hvq_edge.stream.sinks.faults import SinkFault
from hvq_edge.stream.sources.source import lost


@pytest.mark.parametrize("form", FORMS)
@given(secret=SECRETS)
def test_no_value_is_shown_with_its_credentials(form, secret):
    value = form.format(secret)
    for one in (value, value.replace("//", "/", 1)):  # what a path makes of an address
        shown = redacted(one)
        assert BEGIN not in shown
        assert END not in shown
        assert redacted(shown) == shown


@pytest.mark.parametrize("form", ["grpc://me:{}@triton:8001", "a.b:{}@triton:8001"])
@given(password=st.text())
@example("a@ b")
@example(" word")
@example("/word")
@example("x?y")
def test_a_servers_address_is_shown_without_any_password(form, password):
    shown = shown_server(form.format(password))
    assert shown in ("triton:8001", HIDDEN)
    assert redacted_message(f"the server {shown}: no answer") == f"the server {shown}: no answer"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("grpcs://triton:8001", "grpcs://triton:8001"),
        ("[fe80::1]:8001", "[fe80::1]:8001"),
        ("grpc://triton:8001/?key=a@b", HIDDEN),
        ("grpc://triton:8001/#a@b", HIDDEN),
        ("me:word", HIDDEN),
    ],
)
def test_of_a_servers_address_what_is_no_host_goes(address, shown):
    assert shown_server(address) == shown


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
        # Folders, Hive-style and others.
        "parts/key=front/good/003.png: no such file",
        "/data/keyboard/key_left=1/good/001.png",
        "/srv/passed=yes/token=7/decisions.sqlite",
        "runs/author=john/x.png",
        "/tmp/2024-05-31T10:20:30@line/imgs",
        "data/12:30/cam@2.png",
        "watch:/srv/line@2/part#3/imgs",
        "file:///data/a b.png@2x is damaged",
        "C:/parts/good@line.png",
        # Words and numbers.
        "monkey=1, compass=3, bypass=yes, design=3, spas=1, author=me, keyword = 3",
        "pass=1 passed=yes passes=2",
        "station key=3",
        "tokens=3000 are too many, give 784",
        # Where a secret lies is none.
        "password_file=/etc/hvq/pw is missing",
        "token_file = '/etc/hvq/token', key_file= '/etc/hvq/key', token_env=HVQ_TOKEN",
    ],
)
def test_what_holds_none_stays_as_it_is(plain):
    assert redacted(plain) == plain
    assert redacted_message(plain) == plain


@pytest.mark.parametrize(
    "plain",
    [
        "rtsp://10.0.0.5/ch1 cannot be opened; write to support@example.com",
        "rtsp://10.0.0.5:554/line: timed out. Write to support@example.com",
        "the page http://mes/hook is not there, ask anna@line2",
        "at 10:30 write to a@b.c",
        "sinks.mqtt.password: unknown key (did you mean password_file?)",
        "token: must be a string",
        "Basic settings are those of a bearer token",
    ],
)
def test_a_sentence_without_any_stays_as_it_is(plain):
    assert redacted_message(plain) == plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password: hunter2 is wrong", "password: ... is wrong"),
        ("Authorization: Bearer abc", "Authorization: ..."),
        ("Authorization: Basic dXNlcjpwYXNz was refused", "Authorization: ... was refused"),
        ("Bearer abc refused", "Bearer ... refused"),
        ("loginpas=abc apikey=abc userPass=abc", "loginpas=... apikey=... userPass=..."),
        ("pass=hunter2 failed", "pass=... failed"),
        ("rtsp://me:pa ss@10.0.0.5/line: no answer", "rtsp://...@10.0.0.5/line: no answer"),
        ("10.0.0.5/user=me_password=abc: none", "10.0.0.5/user=me_password=... none"),
        ("rtsp://h/x&pass=123", "rtsp://h/x&pass=..."),
        (
            "rtsp://10.0.0.5/a and rtsp://me:abc@10.0.0.6/b",
            "rtsp://10.0.0.5/a and rtsp://...@10.0.0.6/b",
        ),
    ],
)
def test_of_a_sentence_the_secret_alone_goes(text, shown):
    assert redacted_message(text) == shown
    assert redacted_message(shown) == shown


def test_a_library_that_ends_its_sentence_itself():
    assert HvqEdgeError(f"cannot write a.sqlite: {OSError('no room.')}.").cause.endswith("room.")
    assert HvqEdgeError("cannot write a.sqlite: no room..").cause.endswith("no room.")
    assert HvqEdgeError("cannot open rtsp://me:abc@h...").cause.endswith("h...")
