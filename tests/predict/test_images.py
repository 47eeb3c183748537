"""What somebody may name, and the images that it stands for."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import cv2
import pytest
from helpers.images import flat, write_png

from hvq_edge.errors import ImageError, InputError
from hvq_edge.predict import images as module
from hvq_edge.predict.images import find_images


@pytest.fixture
def folder(tmp_path):
    for name in ("b/2.png", "b/10.png", "a.png"):
        write_png(tmp_path / "in" / name, flat(90))
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path / "in"


def test_a_folder_gives_all_images_below_it_in_natural_order(folder):
    found = find_images(folder)
    assert [one.place for one in found] == ["a.png", "b/2.png", "b/10.png"]
    assert [one.name for one in found] == [f"{folder}/{one.place}" for one in found]
    assert not any(one.alone for one in found)
    assert found[0].read().shape == (*flat(90).shape[:2], 3)


def test_pictures_that_are_not_read_are_said(folder, caplog):
    find_images(folder)
    assert not caplog.messages, "a text is nobody's picture"
    (folder / "b" / "3.GIF").touch()
    (folder / "4.avif").touch()
    assert len(find_images(folder)) == 3
    (said,) = caplog.messages
    assert "2 pictures" in said
    assert ".avif, .gif" in said


def test_a_pattern_and_a_file(folder):
    assert [one.place for one in find_images(f"{folder}/b/*.png")] == ["2.png", "10.png"]
    (alone,) = find_images(folder / "a.png")
    assert alone.alone
    assert alone.place == "a.png"


def test_a_video_is_for_another_command():
    with pytest.raises(InputError, match="is a video") as caught:
        find_images("parts.AVI")
    assert caught.value.next_step.endswith("hvq-edge stream --camera parts.AVI")


def test_a_file_whose_name_looks_like_a_pattern(folder):
    write_png(folder / "part[1].png", flat(20))
    (alone,) = find_images(folder / "part[1].png")
    assert alone.read().max() == 20


@pytest.mark.parametrize("name", ["none_*.png", "in/none_%d.png", "none/*"])
def test_nothing_of_that_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        find_images(name)


def test_a_file_that_is_not_there_is_missed_when_it_is_read(tmp_path):
    for path in (tmp_path / "none.png", tmp_path / "\0.png"):
        (one,) = find_images(path)
        with pytest.raises(ImageError):
            one.read()


def test_a_folder_without_images(tmp_path):
    with pytest.raises(InputError, match="no image"):
        find_images(tmp_path)


def test_standard_input(folder):
    (one,) = find_images("-", (folder / "a.png").read_bytes)
    assert one.read().max() == 90
    (empty,) = find_images("-", lambda: b"")
    with pytest.raises(ImageError, match="stdin"):
        empty.read()


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/gone"):
            self.send_error(404)
            return
        _, content = cv2.imencode(".png", flat(70))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content.tobytes())

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_address(address):
    (one,) = find_images(f"{address}/line/part.png?key=secret")
    assert (one.name, one.place) == (f"{address}/line/part.png", "part.png")
    assert one.read().max() == 70


def test_an_address_that_gives_none(address, monkeypatch):
    (gone,) = find_images(f"{address}/gone.png?key=secret")
    with pytest.raises(ImageError, match="404") as raised:
        gone.read()
    assert "secret" not in str(raised.value)
    monkeypatch.setattr(module, "MOST_URL_BYTES", 10)
    (large,) = find_images(f"{address}/part.png")
    with pytest.raises(ImageError, match="more than"):
        large.read()


@pytest.mark.parametrize(
    "name",
    ["http://", "https://u:p@host/x.png", "http://host:x/a.png", "http://u:p@[::1/x.png"],
)
def test_an_address_that_cannot_be_used(name):
    with pytest.raises(InputError) as raised:
        find_images(name)
    assert "u:p" not in str(raised.value)
