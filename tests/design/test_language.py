"""Catalogues: nothing missing, nothing left over, the same places, and sentences of the code."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from importlib.resources import files

import pytest
from helpers.commands import exit_code
from helpers.messages import of_pages, of_reports, sentences
from helpers.paths import ROOT

from hvq_edge.design import language
from hvq_edge.design.language import (
    Language,
    current,
    language_of,
    languages,
    preferred,
    speaking,
    use_language,
)
from hvq_edge.design.pages import page_environment
from hvq_edge.errors import SettingsError
from hvq_edge.evaluation.acceptance import examples
from hvq_edge.evaluation.table import COLUMNS
from hvq_edge.evaluation.thumbnails import examples_of

PLACE = re.compile(r"{(\w*)}")
OTHERS = [code for code in languages() if code != "en"]

NAMED = {
    "cli/demo_end.py": ("next_steps",),
    "evaluation/demo_page.py": ("_FILES",),
    "evaluation/table.py": ("COLUMNS", "way_in_words"),
    "evaluation/metrics/metrics_file.py": ("EvaluationRecord",),
    "evaluation/thumbnails.py": ("examples_of",),
    "evaluation/acceptance/examples.py": (
        "MISSED",
        "UNDECIDED",
        "FALSE_REJECTS",
        "BEST",
        "CALMEST",
    ),
    "evaluation/acceptance/acceptance.py": ("_gather_data",),
    "evaluation/evaluate_target.py": ("evaluate_target", "_run_facts", "_bundle_facts"),
    "stream/report/events.py": ("said_of", "_USUAL"),
}
"""Where reports take a heading or a name from, by module below hvq_edge."""

SAID = {
    "verdict/judgement.py": ("refusal", "rule"),
    "verdict/frame_quality.py": ("fault",),
    "verdict/placement.py": ("moved",),
    "verdict/image_checks.py": ("FrameChecks",),
    "verdict/decision_rule.py": ("DecisionRule",),
    "verdict/likeness/usual.py": ("_WORDS", "Difference"),
    "verdict/tolerance_bound.py": ("FalseRejectBound",),
    "verdict/calibrate/expected_rate.py": ("expected_rate",),
    "verdict/threshold.py": ("autocorrelation_warning",),
    "stream/inspector.py": ("PAUSED", "NOT_JUDGED"),
    "stream/likeness.py": ("_SCORES", "_differences"),
    "stream/drift/measures.py": (
        *("_OPTICS", "_FOCUS", "_COLOUR", "_PLACE", "_ALL", "_PARTS", "_SAYINGS", "_CODES"),
    ),
    "stream/drift/watch.py": ("DriftWatch",),
    "stream/drift/category.py": ("Alarm",),
    "stream/live_page/health.py": ("HealthCheck",),
    "stream/live_page/page_view.py": ("NOT_TESTED", "tested"),
    "stream/report/events.py": ("said_of",),
    "stream/report/shift.py": ("_decisions_said",),
    "stream/report/groups.py": ("Groups", "GOOD"),
    "bundle/judged_images.py": ("Labelled",),
    "evaluation/charts.py": ("trade_off",),
    "evaluation/unseen.py": ("UnseenGood",),
    "evaluation/known_images.py": ("known_note",),
    "evaluation/evaluate_target.py": (
        *("evaluate_target", "_run_facts", "_bundle_facts", "_dataset_in_words"),
    ),
    "evaluation/acceptance/measured.py": ("Measured",),
    "evaluation/acceptance/threshold_bound.py": ("_without_bound", "doubts_of"),
    "evaluation/acceptance/limits_of_use.py": ("limits_of_use", "_kinds_tested"),
    "evaluation/acceptance/acceptance.py": (
        *("_look_at_files", "_gather_measured", "_gather_data", "_gather_thresholds"),
        *("_gather_verification", "_gather_bench"),
    ),
    "explain/words.py": ("_SHARES", "place_title", "likeness_lines"),
    "explain/explanation.py": ("_NO_PARTS", "_NO_EXEMPLARS", "_NO_REGIONS"),
    "explain/explainer.py": ("Explainer",),
}
"""What puts sentences together that pages and reports show, likewise."""

ALSO = {
    "stream/capture/camera_lane.py": ("CameraLane",),
    "stream/sources/cameras/live_capture.py": ("LiveCapture",),
    "stream/live_page/api.py": ("login", "threshold"),
    "stream/live_page/predict_api.py": ("predict",),
    "explain/api.py": ("explain", "_explained"),
    "common/wording.py": ("counted",),
    "verdict/calibrate/gathering.py": ("HELD_OUT",),
    "../export/verify/runners.py": ("_engines_of",),
    "cli/predict.py": ("predict",),
    "model/attribution.py": ("level_names",),
}
"""Of these the catalogue has what people meet; the rest is for those who write programs."""


@cache
def texts(*tables: str) -> frozenset[str]:
    chosen = {"NAMED": NAMED, "SAID": SAID, "ALSO": ALSO}
    return frozenset(
        text.replace("_", " ") if file.endswith("events.py") else text
        for name in tables
        for file, names in chosen[name].items()
        for text in sentences(ROOT / "hvq_edge" / file, names, keys=name == "NAMED")
    )


def words(text: str) -> list[str]:
    """What stands between the places, in order."""
    pieces = [one for part in PLACE.split(text)[::2] for one in re.split("[,;:] ", part)]
    return [one.strip(" ,.;:()") for one in pieces if re.search("[a-z]{3}", one)]


@pytest.mark.parametrize("code", OTHERS)
def test_a_catalogue_has_every_message_and_no_other(code):
    known, pages, reports = language_of(code), of_pages(), of_reports()
    assert len(pages) > 150 < len(reports)
    assert set(known.page) == pages
    assert reports - pages - set(known.report) == set()
    assert set(known.report) - reports - texts("NAMED") == set()


@pytest.mark.parametrize("code", OTHERS)
def test_headings_that_templates_take_from_the_code_are_there(code):
    known = language_of(code)
    headings = {*COLUMNS.values(), *examples_of([]), "known", "chosen"}
    headings |= {examples.MISSED, examples.UNDECIDED, examples.FALSE_REJECTS, examples.BEST}
    headings |= {examples.CALMEST, "category known", "category chosen by the model"}
    headings |= {"pass", "reject", "no decision"}
    assert {one for one in headings if not known.page.get(one) and one not in known.report} == set()


@pytest.mark.parametrize("code", OTHERS)
def test_places_are_the_same(code):
    known = language_of(code)
    for message, translation in {**known.page, **known.report}.items():
        assert sorted(PLACE.findall(message)) == sorted(PLACE.findall(translation)), message
        assert message.startswith(", ") == translation.startswith(", "), message
    for message, translation in known.said.items():
        assert set(PLACE.findall(translation)) <= set(PLACE.findall(message)), message


@pytest.mark.parametrize("code", OTHERS)
def test_every_sentence_of_the_code_is_known(code):
    catalogue = language_of(code)
    known = " | ".join([*catalogue.said, *catalogue.report])
    for text in texts("SAID"):
        for part in words(text):
            if " " in part and not part.startswith(("%", "SHA-256", "hvq-edge")):
                assert part in known, text


@pytest.mark.parametrize("code", OTHERS)
def test_no_sentence_is_left_that_the_code_does_not_say(code):
    said = " | ".join(texts("SAID", "NAMED", "ALSO"))
    for message in language_of(code).said:
        for part in words(message):
            whole = part in said or all(
                one.rstrip("s") in said for one in re.findall(r"[\w-]+", part)
            )
            assert whole, message


@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("score 0.612 above threshold 0.5", "Wert 0,612 über der Schwelle 0,5"),
        ("score … above threshold …", "Wert … über der Schwelle …"),
        (
            "1  no region; highest score 3.6, 48x48 px at 3,4",
            "1  keine Stelle; höchster Wert 3,6, 48x48 px bei 3,4",
        ),
        (
            "score 1.5 above threshold 1, 2 of the 3 frames that reject a part",
            "Wert 1,5 über der Schwelle 1, 2 von 3 Bildern, die ein Teil verwerfen",
        ),
        (
            "camera line <1>: unlike the training images of bolt: softer (0.2 of 0.5), darker "
            "(3 of 4); unlike the training images of nut 1.5: greener (1.5 of 2)",
            "Kamera line <1>: anders als die Trainingsbilder von bolt: unschärfer (0,2, üblich "
            "0,5), dunkler (3, üblich 4); anders als die Trainingsbilder von nut 1.5: grünlicher "
            "(1,5, üblich 2)",
        ),
        (
            "drift of bolt: softer (0.2 of 0.5) since 2027-01-15 08:00:00 UTC: clean the lens; "
            "check focus and vibration",
            "Drift bei bolt: unschärfer (0,2, üblich 0,5) seit 15.01.2027 08:00:00 UTC: Objektiv "
            "reinigen; Schärfe und Vibration prüfen",
        ),
        (
            "2nd largest of 30 good images: at most 12.5 % false rejects at 95 % confidence",
            "2.-größter Wert von 30 Gutbildern: höchstens 12,5 % Fehlausschuss bei 95 % Vertrauen",
        ),
        (
            "2026-11-29T06:05:04+00:00, 24 epochs, on /data/2026-11-29",
            "29.11.2026 06:05:04 UTC, 24 Epochen, auf /data/2026-11-29",
        ),
        ("eth0: link is down (errno 5.1)", "eth0: link is down (errno 5.1)"),
    ],
)
def test_sentences_are_translated_part_by_part(english, german):
    assert language_of("de").sentence(english) == german
    assert Language().sentence(english) == english


def test_numbers_and_moments_are_written_as_they_are_read():
    german = language_of("de")
    assert (german.number(0.12345), german.number(1e-9, "%.2g")) == ("0,1235", "1e-09")
    assert german.digits("1.5e-07") == "1,5e-07"
    assert german.digits("10.16.1.11") == "10.16.1.11"
    at = datetime(2026, 11, 29, 6, 5, 4)
    assert german.moment(at) == "29.11.2026 06:05:04"
    assert Language().moment(at) == "2026-11-29 06:05:04"
    assert german.many(1, "{n} test image", "{n} test images") == "1 Prüfbild"


@pytest.mark.parametrize(
    ("accepted", "code"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.5", "de"),
        ("en-GB,en;q=0.9,de;q=0.8", "en"),
        ("fr, de;q=0.7, en;q=0.3", "de"),
        ("de;q=0, en", "en"),
        ("de ; q=0.8, en; Q=0.5", "de"),
        ("*;q=x,;q=,de;q=nonsense", "en"),
    ],
)
def test_a_browser_gets_what_it_wants_most(accepted, code):
    assert preferred(accepted).code == code


def test_a_header_with_thousands_of_languages_reads_the_catalogues_once(monkeypatch):
    listed: list[str] = []

    def listing(package: str):
        listed.append(package)
        return files(package)

    monkeypatch.setattr(language, "files", listing)
    languages.cache_clear()
    assert preferred("fr," * 1000 + "de").code == "de"
    assert listed.count("hvq_edge.design") <= 2


def test_a_list_without_end_stays_readable():
    long = "; ".join(["score 1.5 above threshold 1"] * 1000)
    said = language_of("de").sentence(long)
    assert said.startswith("Wert 1,5 über der Schwelle 1; Wert")
    assert said.endswith("; score 1.5 above threshold 1")


def test_a_variable_that_names_no_language_is_said_before_a_command_begins(monkeypatch, capsys):
    monkeypatch.setenv("HVQ_EDGE_LANGUAGE", "../../etc")
    assert exit_code("runs") == 2
    assert "HVQ_EDGE_LANGUAGE: there is no catalogue" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("predict",), ("bundle",), ("bundle", "install")])
def test_a_variable_that_names_no_language_leaves_the_help(command, monkeypatch, capsys):
    monkeypatch.setenv("HVQ_EDGE_LANGUAGE", "xx")
    assert exit_code(*command, "--help") == 0
    said = capsys.readouterr()
    assert f" {' '.join(command)} [OPTIONS]" in said.out
    assert said.err.startswith("Warning: HVQ_EDGE_LANGUAGE: there is no catalogue")


def test_a_group_alone_shows_its_help_all_the_same(monkeypatch, capsys):
    monkeypatch.setenv("HVQ_EDGE_LANGUAGE", "xx")
    exit_code("log")
    said = capsys.readouterr()
    assert " log [OPTIONS] COMMAND" in said.out + said.err
    assert "Warning: HVQ_EDGE_LANGUAGE: there is no catalogue" in said.err


def test_the_language_is_chosen_by_option_variable_or_request(monkeypatch):
    assert current().code == "en"
    monkeypatch.setenv("HVQ_EDGE_LANGUAGE", "de")
    assert current().code == "de"
    use_language("en")
    assert current().code == "en"
    with speaking(language_of("de")):
        assert current().code == "de"
    assert current().code == "en"
    with pytest.raises(SettingsError, match="no catalogue of the language 'xx'"):
        use_language("xx")


def test_values_are_escaped_and_marks_of_a_message_are_not():
    page = page_environment("hvq_edge", language_of("de")).from_string(
        '{{ _("<b>{n}</b> of {all}", n="<i>", all=3) }} {{ sentence(evil) }}'
    )
    assert page.render(evil="<script>") == "<b>&lt;i&gt;</b> von 3 &lt;script&gt;"
