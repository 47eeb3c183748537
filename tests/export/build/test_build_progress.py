"""A bar that goes forward only, and ends where the build ends."""

from __future__ import annotations

import pytest

from hvq_edge.export.build.monitor import PhaseTree


def test_nested_phases_share_a_step():
    tree = PhaseTree()
    tree.start("build", None, 4)
    assert tree.fraction() == 0
    tree.step("build", 0)
    assert tree.fraction() == pytest.approx(1 / 4)
    tree.start("tactics", "build", 10)
    tree.step("tactics", 4)
    assert tree.fraction() == pytest.approx(1 / 4 + 1 / 8)
    assert tree.current == "tactics"
    tree.finish("tactics")
    assert tree.current == "build"
    tree.step("build", 1)
    assert tree.fraction() == pytest.approx(1 / 2)
    tree.finish("build")
    assert tree.fraction() == 1


def test_it_never_goes_back():
    """TensorRT begins phases of one name again and again."""
    tree = PhaseTree()
    tree.start("build", None, 2)
    tree.start("timing", "build", 2)
    tree.step("timing", 1)
    before = tree.fraction()
    tree.start("timing", "build", 100)
    assert tree.fraction() == before == 0.5


def test_side_by_side_the_furthest_counts():
    tree = PhaseTree()
    tree.start("build", None, 1)
    tree.start("one", "build", 4)
    tree.start("two", "build", 4)
    tree.step("one", 0)
    tree.step("two", 2)
    assert tree.fraction() == pytest.approx(0.75)


@pytest.mark.parametrize("steps", [0, -1])
def test_a_phase_without_steps(steps):
    tree = PhaseTree()
    tree.start("build", None, steps)
    tree.step("build", 5)
    assert tree.fraction() == 1


def test_a_phase_that_nobody_began():
    tree = PhaseTree()
    tree.step("ghost", 3)
    tree.finish("ghost")
    assert (tree.fraction(), tree.current) == (0, "")
