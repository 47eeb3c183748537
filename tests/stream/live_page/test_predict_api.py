"""Images over HTTP: the verdict of a request's image, as `predict` gives it, and its overlay."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from helpers.bright_parts import BrightnessEngine, bundle  # noqa: F401  # a fixture
from helpers.image_judging import BAD, GOOD, PNG, SIDE, client, engine, judge, outcomes  # noqa: F401  # fixtures
from helpers.live_line import BEARER, TOKEN, Line, client_of
from helpers.patience import until
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from hvq_edge.design.language import language_of, languages, speaking
from hvq_edge.errors import BundleError
from hvq_edge.predict.predictor import Predictor
from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.api import Served
from hvq_edge.stream.live_page.judge import PLACES, ImageJudge


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
