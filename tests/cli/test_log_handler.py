"""The log on standard error."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
from helpers.images import make_texture, write_png

from hvq_edge.cli.app import main
from hvq_edge.cli.log_handler import install_handler

LOGGER = logging.getLogger("hvq_edge.trial")


@pytest.fixture(autouse=True)
def _level_as_before():
    """Tests that follow in this process would see what these asked for."""
    logger = logging.getLogger("hvq_edge")
    before = logger.level
    yield
    logger.setLevel(before)


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


BROKEN = """
import sys
from hvq_edge.data.images import read_image
from hvq_edge.errors import ImageError
import cv2
cv2.imread(sys.argv[1] + ".none")
try:
    read_image(sys.argv[1])
except ImageError as error:
    print(error.cause)
"""


@pytest.mark.parametrize("level", [None, "WARNING"])
def test_opencv_says_nothing_beside_our_own_message_unless_the_user_asks(tmp_path, level):
    file = tmp_path / "part.png"
    write_png(file, make_texture(1))
    content = bytearray(file.read_bytes())
    content[60:] = bytes(len(content) - 60 - 12) + content[-12:]
    file.write_bytes(content)
    environment = {name: value for name, value in os.environ.items() if "OPENCV" not in name}
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, str(file)],
        env=environment | ({"OPENCV_LOG_LEVEL": level} if level else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{file} cannot be used: " in done.stdout
    assert ("WARN" in done.stderr) is (level is not None), done.stderr
