"""Images like the training images are like them, and others are not."""

from __future__ import annotations

import random

import pytest
from helpers.changes import blurred, compressed, lit, noisy, tinted
from helpers.looks import texture_looks
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.verdict.likeness.look import Look
from hvq_edge.verdict.likeness.usual import (
    Difference,
    UsualLook,
    differences,
    learn_usual,
    median_look,
)

WINDOW = 20
positive = st.floats(1e-3, 1e4)
looks = st.builds(Look, *[positive] * len(Look._fields))


@pytest.fixture(scope="module")
def usual() -> UsualLook:
    return learn_usual(texture_looks(60))


def words(found) -> list[str]:
    return [difference.word for difference in found]


@given(st.lists(looks, min_size=1, max_size=30))
def test_no_training_image_is_unlike_the_training_images(seen):
    usual = learn_usual(seen)
    assert [list(differences(look, usual)) for look in seen] == [[]] * len(seen)
    assert UsualLook.model_validate_json(usual.model_dump_json()) == usual


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (blurred(1.0), "softer"),
        (noisy(5.0), "noisier"),
        (compressed(75), "more compressed"),
        (compressed(50), "more compressed"),
        (lit(0.85), "darker"),
        (lit(1.15), "brighter"),
        (tinted(0.92, 1.0, 1.08), "colder"),
        (tinted(1.08, 1.0, 0.92), "warmer"),
        (tinted(0.92, 1.0, 0.92), "greener"),
        (tinted(1.08, 1.0, 1.08), "pinker"),
    ],
)
def test_the_first_window_tells_what_has_changed(usual, change, word):
    found = differences(median_look(texture_looks(WINDOW, first=500, change=change)), usual)
    assert word in words(found)


def test_less_light_is_only_darker(usual):
    window = texture_looks(WINDOW, first=500, change=lit(0.85))
    assert words(differences(median_look(window), usual)) == ["darker"]


def test_windows_of_images_like_the_training_images_raise_no_alarm(usual):
    """Stated: less than once in a million; seen: never in 10,000 windows."""
    pool = texture_looks(200, first=1000)
    draw = random.Random(0)
    for _ in range(10_000):
        assert not list(differences(median_look(draw.sample(pool, WINDOW)), usual))


@pytest.mark.parametrize(("images", "share"), [(20, 0.03), (50, 0.0125), (200, 0.0025)])
def test_one_part_shown_for_long_is_rarely_unlike_them(images, share):
    """Gaussian measures, whose spread is well above what counts at least."""
    draw = random.Random(images)

    def look() -> Look:
        return Look(*(2 ** draw.gauss(0, 0.5) for _ in Look._fields))

    runs, odd = 400, 0
    for _ in range(runs):
        usual = learn_usual([look() for _ in range(images)])
        odd += sum(bool(list(differences(look(), usual))) for _ in range(5))
    assert odd <= 5 * runs * share + 3 * (5 * runs * share) ** 0.5


def test_one_odd_training_image_hides_nothing_but_its_own_kind():
    usual = learn_usual([*texture_looks(40), *texture_looks(1, first=900, change=lit(0.5))])
    assert not list(differences(texture_looks(1, first=901, change=lit(0.5))[0], usual))
    window = median_look(texture_looks(WINDOW, first=500, change=compressed(50)))
    assert "more compressed" in words(differences(window, usual))


def test_what_was_said_holds_until_half_of_the_margin():
    usual = learn_usual([Look(*[100.0] * 6)] * 10)  # a margin of twice 3 % of the brightness
    for brightness, at_first, said in (
        (95.0, [], ["darker"]),
        (97.5, [], []),
        (93, *[["darker"]] * 2),
    ):
        look = usual_look(brightness)
        assert words(differences(look, usual)) == at_first
        assert words(differences(look, usual, ["darker"])) == said


def usual_look(brightness: float) -> Look:
    return Look(*[100.0] * 6)._replace(brightness=brightness)


def test_a_difference_has_the_measure_and_what_is_usual():
    usual = learn_usual([usual_look(brightness) for brightness in (98.0, 100.0, 101.0)])
    assert list(differences(usual_look(50.0), usual)) == [Difference("darker", 50.0, 100.0)]
    assert list(differences(usual_look(200.0), usual)) == [Difference("brighter", 200.0, 100.0)]


def test_a_difference_reads_as_a_person_would_say_it():
    assert str(Difference("softer", 0.2134, 0.48)) == "softer (0.213 of 0.48)"
    assert str(Difference("darker", 97.6, 121.2)) == "darker (97.6 of 121)"
