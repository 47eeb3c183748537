"""The log on standard error."""

from __future__ import annotations

import logging

import pytest

from hvq_edge.cli.app import main
from hvq_edge.cli.logs import install_handler

LOGGER = logging.getLogger("hvq_edge.trial")


def test_warnings_are_said_once_in_one_line_without_colour(capsys):
    install_handler()
    install_handler()
    LOGGER.info("camera 0 is back")
    LOGGER.warning("mqtt: %s", "no answer " * 20)
    assert capsys.readouterr().err == f"Warning: mqtt: {'no answer ' * 20}\n"


def test_the_level_is_the_users(capsys, monkeypatch):
    monkeypatch.setenv("HVQ_EDGE_LOG", "info")
    install_handler()
    LOGGER.info("camera 0 is back [after] 2 attempts")
    assert capsys.readouterr().err == "Info: camera 0 is back [after] 2 attempts\n"
    monkeypatch.setenv("HVQ_EDGE_LOG", "loud")
    with pytest.raises(SystemExit) as caught:
        main(["runs"])
    assert caught.value.code == 2
    assert "HVQ_EDGE_LOG is 'LOUD'" in capsys.readouterr().err
