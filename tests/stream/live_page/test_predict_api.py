"""Images over HTTP: the verdict of a request's image, who may ask, and what is too much."""

from __future__ import annotations

import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from helpers.bright_parts import BrightnessEngine, bundle  # noqa: F401  # a fixture
from helpers.graphs import save_bundle
from helpers.live_line import BEARER, CAMERA, TOKEN, Line, client_of
from helpers.patience import PATIENCE_SECONDS, until
from helpers.thresholds import threshold_at
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.design.language import language_of, languages, speaking
from hvq_edge.errors import BundleError
from hvq_edge.predict.predictor import Predictor
from hvq_edge.stream.live_page import connections, middleware
from hvq_edge.stream.live_page import judge as judge_module
from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.api import Served
from hvq_edge.stream.live_page.judge import PLACES, ImageJudge
from hvq_edge.stream.live_page.serve import Serving, serve
from hvq_edge.stream.live_page.settings import LivePageSettings
from hvq_edge.stream.service import open_line
from hvq_edge.stream.settings import load_stream_settings

PNG = {"content-type": "image/png"}
SIDE = 96


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def part(*, bright: bool, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(60, 100, (SIDE, SIDE, 3)).astype(np.uint8)
    if bright:
        image[24:60, 24:60] = 255
    return image


GOOD, BAD = png(part(bright=False)), png(part(bright=True))


class HeldEngine(BrightnessEngine):
    """Judges when the test lets it; fails when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.faults: list[Exception] = []
        self.closed = 0

    def run(self, frames, category=None):
        assert self.free.wait(PATIENCE_SECONDS)
        if self.faults:
            raise self.faults.pop()
        return super().run(frames, category)

    def close(self):
        self.closed += 1


@pytest.fixture
def engine() -> HeldEngine:
    return HeldEngine()


@pytest.fixture
def judge(engine, bundle) -> Iterator[ImageJudge]:
    with ImageJudge(lambda: Predictor(engine, bundle)) as made:
        yield made
        engine.free.set()


def client(judge: ImageJudge | None, **headers: str) -> Any:
    return client_of(Served(None, Access(TOKEN, reading_is_open=True), judge=judge), **headers)


def outcomes(judge: ImageJudge) -> dict[str, int]:
    return {outcome: number for outcome, number in judge.snapshot()[0].items() if number}


def test_an_image_has_the_verdict_that_predict_gives_it(judge, bundle):
    asking = client(judge, **BEARER, **PNG)
    with Predictor(BrightnessEngine(), bundle) as model:
        for content, verdict in ((GOOD, "pass"), (BAD, "reject")):
            image = cv2.cvtColor(
                cv2.imdecode(np.frombuffer(content, np.uint8), 1), cv2.COLOR_BGR2RGB
            )
            answer = asking.post("/predict", content=content)
            assert answer.status_code == 200
            assert answer.json()["verdict"] == verdict
            assert answer.json() == json.loads(json.dumps(model.predict(image).to_dict()))
    ((left, top, width, height),) = [one["box"] for one in answer.json()["regions"]]
    assert max(left, top) < 24
    assert min(left + width, top + height) >= 60
    assert outcomes(judge) == {"pass": 1, "reject": 1}


def test_an_image_without_a_decision_is_answered_like_others(bundle):
    def forget_thresholds(model: Predictor) -> None:
        model.thresholds = {}

    with ImageJudge(
        lambda: Predictor(BrightnessEngine(), bundle), before_each=forget_thresholds
    ) as judge:
        asking = client(judge, **BEARER, **PNG)
        answer = asking.post("/predict", content=GOOD)
        assert (answer.status_code, answer.json()["verdict"]) == (200, "no_decision")
        assert "threshold" in answer.json()["reason"]
        answer = asking.post("/predict?as=overlay", content=GOOD)
        assert answer.headers["content-type"] == "image/png"
        assert outcomes(judge) == {"no_decision": 2}


@pytest.mark.parametrize(
    ("query", "accept", "media"),
    [
        ("", "*/*", "application/json"),
        ("", "image/png", "image/png"),
        ("?as=overlay", "application/json", "image/png"),
        ("?as=json", "image/png", "application/json"),
    ],
)
def test_the_overlay_is_answered_to_who_asks_for_it(judge, query, accept, media):
    answer = client(judge, **BEARER, **PNG).post(
        f"/predict{query}", content=BAD, headers={"accept": accept}
    )
    assert answer.headers["content-type"] == media
    if media == "image/png":
        drawn = cv2.imdecode(np.frombuffer(answer.content, np.uint8), 1)
        assert drawn.shape[1] >= SIDE
        said = json.loads(answer.headers["x-prediction"])
        assert (said["verdict"], said["category"]) == ("reject", "bolt")


@pytest.mark.parametrize(
    ("asked", "of_the_process", "of_the_page", "spoken"),
    [
        ("de, en;q=0.8", None, None, "de"),
        ("en", "de", None, "en"),
        (None, "de", None, "de"),
        ("de", None, "en", "en"),
    ],
)
def test_the_overlay_speaks_the_askers_language(
    judge, bundle, monkeypatch, asked, of_the_process, of_the_page, spoken
):
    if of_the_process:
        monkeypatch.setenv("HVQ_EDGE_LANGUAGE", of_the_process)
    served = Served(None, Access(TOKEN, reading_is_open=True), judge=judge, language=of_the_page)
    headers = {} if asked is None else {"accept-language": asked}
    asking = client_of(served, **BEARER, **PNG)
    answer = asking.post("/predict?as=overlay", content=BAD, headers=headers)
    drawn = cv2.imdecode(np.frombuffer(answer.content, np.uint8), 1)
    image = cv2.cvtColor(cv2.imdecode(np.frombuffer(BAD, np.uint8), 1), cv2.COLOR_BGR2RGB)
    with Predictor(BrightnessEngine(), bundle) as model:
        result = model.predict(image)
    said = {}
    for code in languages():
        with speaking(language_of(code)):
            said[code] = cv2.cvtColor(result.plot(), cv2.COLOR_RGB2BGR)
    assert [code for code, plot in said.items() if np.array_equal(plot, drawn)] == [spoken]
    assert answer.headers["vary"] == "accept-language"


def test_answers_are_as_the_document_describes_them(judge):
    asking = client(judge, **BEARER, **PNG)
    document = asking.get("/openapi.json").json()
    assert set(document["paths"]) == {"/predict", "/trigger", "/api/login", "/api/logout"}
    described = document["paths"]["/predict"]["post"]
    assert set(described["requestBody"]["content"]) == {"image/*", "application/octet-stream"}
    assert described["security"] == [{"token": []}]
    contents = described["responses"]["200"]["content"]
    assert set(contents) == {"application/json", "image/png"}
    whole = {**contents["application/json"]["schema"], "components": document["components"]}
    Draft202012Validator.check_schema(whole)
    for content in (GOOD, BAD):
        answer = asking.post("/predict", content=content).json()
        Draft202012Validator(whole).validate(answer)
        assert set(answer) == set(document["components"]["schemas"]["Prediction"]["properties"])


def header_of_a_huge_image() -> bytes:
    huge = bytearray(GOOD)
    huge[16:24] = (30_000).to_bytes(4, "big") * 2
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    return bytes(huge)


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (b"", PNG, 422, "brings no image"),
        (b"no image at all" * 9, PNG, 422, "not an image but text"),
        (GOOD[:400], PNG, 422, "cannot be used"),
        (header_of_a_huge_image(), PNG, 422, "30000x30000 pixels"),
        (GOOD, {}, 415, "not an image"),
        (GOOD, {"content-type": "multipart/form-data; boundary=x"}, 415, "not an image"),
        (GOOD, {"content-type": "text/plain"}, 415, "not an image"),
        (GOOD, {**PNG, "content-length": str((64 << 20) + 1)}, 413, "64 MiB"),
        (GOOD, {**PNG, "authorization": "Bearer wrong"}, 401, "token"),
        (GOOD, {**PNG, "origin": "http://evil.example"}, 403, "another site"),
        (GOOD, {**PNG, "sec-fetch-site": "cross-site"}, 403, "another site"),
        (GOOD, {**PNG, "host": "evil.example"}, 421, "not a name"),
    ],
)
def test_what_cannot_be_judged_is_refused_and_takes_no_place(
    judge, engine, content, headers, status, said
):
    asking = client(judge)
    for _ in range(PLACES + 1):
        answer = asking.post("/predict", content=content, headers={**BEARER, **headers})
        assert answer.status_code == status
        assert said in answer.json()["cause"]
        assert answer.json()["next_step"]
    assert engine.calls == 0
    assert asking.post("/predict", content=GOOD, headers={**BEARER, **PNG}).status_code == 200


def test_a_body_that_says_no_length_ends_at_the_same_limit(judge, monkeypatch):
    monkeypatch.setattr(middleware, "LARGEST_IMAGE", len(GOOD))

    def pieces(content: bytes) -> Iterator[bytes]:
        for i in range(0, len(content), 1000):
            yield content[i : i + 1000]

    asking = client(judge, **BEARER, **PNG)
    for _ in range(PLACES + 1):
        assert asking.post("/predict", content=pieces(GOOD + b"x")).status_code == 413
    assert asking.post("/predict", content=pieces(GOOD)).status_code == 200
    change = {"category": "x" * 20_000, "value": 1.0}  # other paths keep theirs
    headers = {"content-type": "application/json"}
    assert asking.post("/api/login", json=change, headers=headers).status_code == 413


def test_a_fault_of_the_engine_is_said_and_the_next_image_gets_a_new_one(engine, bundle):
    opened = []

    def open_model() -> Predictor:
        opened.append(1)
        return Predictor(engine, bundle)

    with ImageJudge(open_model) as judge:
        asking = client(judge, **BEARER, **PNG)
        assert asking.get("/healthz").json()["working"] is True
        for fault, said in (
            (BundleError("the GPU has gone."), "the engine failed: the GPU has gone."),
            (RuntimeError("out of memory"), "the engine failed: RuntimeError: out of memory"),
        ):
            engine.faults = [fault]
            answer = asking.post("/predict", content=GOOD)
            assert (answer.status_code, answer.json()["cause"]) == (500, said)
            health = asking.get("/healthz")
            assert (health.status_code, health.json()["failing"]) == (
                503,
                [said.removeprefix("the engine failed: ")],
            )
            assert asking.post("/predict", content=GOOD).status_code == 200
            assert asking.get("/healthz").status_code == 200
        assert (len(opened), engine.closed) == (3, 2)
        assert outcomes(judge) == {"fault": 2, "pass": 2}
    assert engine.closed == 3


def test_a_model_that_cannot_be_opened_is_tried_again(bundle):
    ways: list[Callable[[], Predictor]] = [lambda: Predictor(BrightnessEngine(), bundle)]

    def gone() -> Predictor:
        raise BundleError("the bundle is gone.", next_step="copy it again")

    ways.append(gone)
    with ImageJudge(lambda: ways.pop()()) as judge:
        asking = client(judge, **BEARER, **PNG)
        answer = asking.post("/predict", content=GOOD)
        assert answer.status_code == 500
        assert answer.json()["cause"] == "the engine failed: the bundle is gone."
        assert asking.post("/predict", content=GOOD).status_code == 200
    ways.append(gone)
    with ImageJudge(lambda: ways.pop()()) as judge, pytest.raises(BundleError, match="is gone"):
        judge.open()


@contextmanager
def serving(judge: ImageJudge, tmp_path) -> Iterator[Serving]:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    settings = LivePageSettings(port=0, token_file=token)
    with serve(settings, None, judge=judge) as made:
        yield made


def dialled(at: Serving, content: bytes) -> socket.socket:
    """A connection that has sent a whole request."""
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", at.port), timeout=PATIENCE_SECONDS)
    connection.sendall(head.encode() + content)
    return connection


def test_a_few_may_wait_and_one_more_is_told_to_come_again(judge, engine, tmp_path):
    engine.free.clear()
    with serving(judge, tmp_path) as at, ThreadPoolExecutor(PLACES) as pool:

        def post() -> httpx.Response:
            headers = {**BEARER, **PNG}
            return httpx.post(
                f"{at.url}predict", content=GOOD, headers=headers, timeout=PATIENCE_SECONDS
            )

        waiting = [pool.submit(post) for _ in range(PLACES)]
        until(lambda: not judge._places._value, "all places are taken")
        refused = post()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert f"{PLACES} images" in refused.json()["cause"]
        healthy = httpx.get(f"{at.url}healthz", headers=BEARER, timeout=PATIENCE_SECONDS)
        assert healthy.json()["working"] is True
        engine.free.set()
        assert [one.result().json()["verdict"] for one in waiting] == ["pass"] * PLACES
        assert post().status_code == 200


def test_who_goes_away_leaves_the_place_to_others(judge, engine, tmp_path):
    engine.free.clear()
    with serving(judge, tmp_path) as at, ExitStack() as ends:
        gone = [ends.enter_context(dialled(at, GOOD)) for _ in range(PLACES)]
        until(lambda: judge._jobs.qsize() == PLACES - 1, "the engine has one, the others wait")
        for connection in gone:
            connection.close()
        until(lambda: outcomes(judge) == {"gone": PLACES - 1}, "while the engine still works")
        half = ends.enter_context(socket.create_connection(("127.0.0.1", at.port)))
        engine.free.set()
        until(lambda: outcomes(judge) == {"pass": 1, "gone": PLACES - 1})
        half.sendall(
            f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: image/png\r\nContent-Length: 9999\r\n\r\nhalf".encode()
        )
        until(lambda: judge._places._value == PLACES - 1, "half a body has a place")
        half.close()
        until(lambda: outcomes(judge) == {"pass": 1, "gone": PLACES})
        assert judge._places._value == PLACES
        assert engine.calls == 1


def test_an_image_may_be_larger_than_other_bodies_and_a_refusal_reaches_its_sender(judge, tmp_path):
    noise = np.random.default_rng(0).integers(0, 100, (900, 900, 3)).astype(np.uint8)
    content = png(noise)
    assert len(content) > 20 * connections.LARGEST_EXCHANGE
    with serving(judge, tmp_path) as at, httpx.Client(timeout=PATIENCE_SECONDS) as asking:
        for _ in range(3):
            refused = asking.post(f"{at.url}predict", content=content, headers=PNG)
            assert refused.status_code == 401
            answer = asking.post(f"{at.url}predict", content=content, headers={**BEARER, **PNG})
            assert answer.json()["verdict"] == "pass"
        sample = asking.get(f"{at.url}metrics", headers=BEARER).text
    assert 'hvq_page_connections_closed_total{limit="size"} 0.0' in sample


@pytest.mark.parametrize("headers", [PNG, {**PNG, **BEARER}])
def test_an_image_without_end_ends(judge, tmp_path, monkeypatch, headers):
    monkeypatch.setattr(connections, "LARGEST_IMAGE", 1 << 20)
    monkeypatch.setattr(middleware, "LARGEST_IMAGE", 1 << 20)
    said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n{said}Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"A" * 0x10000 + b"\r\n"
    most, sent = 32 << 20, 0
    with (
        serving(judge, tmp_path) as at,
        socket.create_connection(("127.0.0.1", at.port), timeout=PATIENCE_SECONDS) as connection,
    ):
        connection.sendall(head.encode())
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < most:
                connection.sendall(chunk)
                sent += len(chunk)
        assert sent < most
        assert httpx.get(f"{at.url}healthz", timeout=PATIENCE_SECONDS).is_success


def test_more_time_is_given_to_images_alone(judge, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "EXCHANGE_SECONDS", 0.2)
    engine.free.clear()
    with serving(judge, tmp_path) as at, dialled(at, GOOD) as waits:
        other = socket.create_connection(("127.0.0.1", at.port), timeout=PATIENCE_SECONDS)
        with other:
            other.sendall(b"POST /api/login HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            assert other.recv(1) == b"", "it had less than a second"
        engine.free.set()
        assert waits.recv(12) == b"HTTP/1.1 200"


def test_an_image_that_announces_very_many_pixels_is_not_decoded(judge, monkeypatch):
    monkeypatch.setattr(judge_module, "MOST_PIXELS", SIDE * SIDE - 1)
    monkeypatch.setattr(judge_module, "image_of", None)
    answer = client(judge, **BEARER, **PNG).post("/predict", content=GOOD)
    assert answer.status_code == 422
    assert f"{SIDE}x{SIDE} pixels" in answer.json()["cause"]
    assert "hvq-edge predict" in answer.json()["next_step"]


def test_the_end_waits_for_the_image_under_way_and_for_no_other(judge, engine):
    engine.free.clear()
    for _ in range(PLACES):
        judge.enter()
    first, *others = [judge.submit(GOOD) for _ in range(PLACES)]
    until(first.running)
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(judge.close)
        until(lambda: judge._ended)
        assert not end.done()
        engine.free.set()
        end.result()
    assert first.result()[0].verdict == "pass"
    assert all(one.cancelled() for one in others)
    assert (engine.calls, engine.closed) == (1, 1)


def test_metrics_say_what_became_of_images(judge, engine):
    asking = client(judge, **BEARER, **PNG)
    engine.faults = [RuntimeError("no")]
    for content in (GOOD, GOOD, BAD, b"?"):
        asking.post("/predict", content=content)
    families = {
        one.name: one for one in text_string_to_metric_families(asking.get("/metrics").text)
    }
    requests = families["hvq_predict_requests"].samples
    assert {one.labels["outcome"]: one.value for one in requests if one.value} == {
        "fault": 1,
        "pass": 1,
        "reject": 1,
        "refused": 1,
    }
    took = {one.name: one.value for one in families["hvq_predict_seconds"].samples}
    assert took["hvq_predict_seconds_count"] == 4
    assert took["hvq_predict_seconds_sum"] > 0


def test_beside_a_line_its_thresholds_are_in_force(bundle):
    line = Line()

    def as_the_line(model: Predictor) -> None:
        model.thresholds = line.controls.thresholds

    access = Access(TOKEN, reading_is_open=True)
    with ImageJudge(
        lambda: Predictor(BrightnessEngine(), bundle), before_each=as_the_line
    ) as judge:
        asking = client_of(Served(line.view, access, judge=judge), **BEARER, **PNG)
        assert asking.post("/predict", content=GOOD).json()["verdict"] == "pass"
        line.controls.set_threshold("bolt", 0.2)
        answer = asking.post("/predict", content=GOOD).json()
        assert (answer["verdict"], answer["threshold"]) == ("reject", 0.2)
        assert asking.get("/api/state").json()["counts"]["frames"] == 0, "it is no frame of it"


def test_without_a_line_there_is_a_page_for_images_and_no_other(judge):
    asking = client(judge)
    for path in ("/", "/predict"):
        assert "Drop an image" in asking.get(path).text
    for path in ("/api/state", "/api/decisions", "/api/cameras/0/image.jpg"):
        assert asking.get(path).status_code == 404
    closed = client_of(Served(None, Access(TOKEN), judge=judge))
    for path in ("/", "/predict"):
        assert closed.get(path).headers["location"] == "/login"
    assert client(None, **BEARER, **PNG).post("/predict", content=GOOD).status_code == 409


JSON = {"content-type": "application/json"}


def triggered(**cameras: Callable[[str], tuple[int, dict[str, Any]]]) -> Any:
    view = Line().view if cameras else None
    served = Served(view, Access(TOKEN, reading_is_open=True), triggers=cameras)
    return client_of(served, **BEARER, **JSON)


def test_a_trigger_is_answered_with_the_decision():
    decision = Line().see(0.7).fields()
    status, body = HTTPStatus.OK, {"frame": 7, "decisions": [decision]}
    answer = triggered(front=lambda _: (status, body)).post("/trigger")
    assert answer.status_code == 200
    assert answer.json() == json.loads(json.dumps(body))
    assert decision["camera"] == CAMERA
    late = triggered(front=lambda _: (HTTPStatus.ACCEPTED, {"frame": None, "decisions": []}))
    answer = late.post("/trigger", json={"camera": "front"})
    assert (answer.status_code, answer.json()) == (202, {"frame": None, "decisions": []})


def test_a_trigger_that_cannot_be_is_refused():
    def full(_part: str) -> tuple[int, dict[str, Any]]:
        return HTTPStatus.SERVICE_UNAVAILABLE, {"fault": "too many triggers wait"}

    answer = triggered(front=full).post("/trigger")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    answer = triggered().post("/trigger")
    assert (answer.status_code, answer.json()["cause"]) == (409, "there is no camera.")
    two = triggered(front=full, back=full)
    assert two.post("/trigger").status_code == 422
    assert two.post("/trigger", json={"camera": "top"}).status_code == 404
    assert two.post("/trigger", json={"part": "x" * 201}).status_code == 422
    assert two.post("/trigger", headers={"authorization": "no"}).status_code == 401
    assert two.post("/trigger", headers={"origin": "http://evil.example"}).status_code == 403


def test_the_page_of_a_line_judges_and_triggers_as_the_line_does(tmp_path):
    saved = save_bundle(tmp_path / "bundle", "input")
    limits = {name: threshold_at(10.6) for name in saved.manifest.categories}
    write_manifest(saved.path, saved.manifest.model_copy(update={"thresholds": {"fp32": limits}}))
    (tmp_path / "images").mkdir()
    for i, content in enumerate((BAD, GOOD)):
        (tmp_path / f"images/{i}.png").write_bytes(content)
    settings = load_stream_settings(
        cameras=[str(tmp_path / "images")],
        each_camera={"trigger_port": 0},
        page={"port": 0},
        flags={
            "bundle": saved.path,
            "backend": "onnxruntime",
            "category": "nut",
            "display": False,
        },
    )
    with open_line(settings) as line, ThreadPoolExecutor(1) as pool:
        inspecting = pool.submit(lambda: [*line])
        headers = {"authorization": f"Bearer {line.page.token}"}
        with httpx.Client(base_url=line.page.url, headers=headers, timeout=60.0) as asking:
            for content in (BAD, GOOD):
                asked = {"part": f" SN {len(content)}"}
                (taken,) = asking.post("/trigger", json=asked).json()["decisions"]
                assert taken["part"] == asked["part"].strip()
                judged = asking.post("/predict", content=content, headers=PNG).json()
                same = ("verdict", "score", "category", "regions")
                assert [judged[key] for key in same] == [taken[key] for key in same]
                assert judged["verdict"] == ("reject" if content == BAD else "pass")
            assert asking.post("/api/category", json={"category": "bolt"}).is_success
            judged = asking.post("/predict", content=BAD, headers=PNG).json()
            assert (judged["category"], judged["verdict"]) == ("bolt", "pass")
            assert asking.get("/api/state").json()["counts"]["frames"] == 2
        line.stop()
        assert [one.verdict for one in inspecting.result()] == ["reject", "pass"]
