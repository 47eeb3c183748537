"""Timing in interleaved rounds, so that a busy moment of the machine meets everybody.

In each round each entrant runs untimed until its threads are awake and the others' asleep, and then
a few times timed. Ratios are taken within a round, where both had the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.runtime.choice.measured_choice import settle

RUNS_A_ROUND = 5
WARM_UPS = 5

Seconds = NDArray[np.float64]
"""Seconds of each call, float64 ``[rounds, runs a round]``."""


def time_rounds(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    runs_a_round: int = RUNS_A_ROUND,
    warm_ups: int = WARM_UPS,
    clock: Callable[[], float] = perf_counter,
    stage: str = "timing",
    on_progress: ProgressCallback = silent,
) -> dict[str, Seconds]:
    """Time calls side by side.

    Args:
        runs: a call for each name.
        rounds: number of rounds, at least one.
        runs_a_round: timed calls of each in a round.
        warm_ups: calls of each before the first round.
        clock: gives the time in seconds.
        stage: name of the stage for ``on_progress``.
        on_progress: called after each round.

    Raises:
        Exception: whatever a call raises.
    """
    seconds = {name: np.empty((rounds, runs_a_round)) for name in runs}
    for run in runs.values():
        for _ in range(warm_ups):
            run()
    for i in range(rounds):
        for name, run in runs.items():
            settle(run, clock)
            for j in range(runs_a_round):
                start = clock()
                run()
                seconds[name][i, j] = clock() - start
        on_progress(stage, i + 1, rounds)
    return seconds


def ratios(reference: Seconds, other: Seconds) -> tuple[float, float, float]:
    """Return how many times faster the other is: 10th percentile, median, 90th over the rounds.

    Args:
        reference: seconds of the reference.
        other: seconds of the other, in the same rounds.
    """
    each = np.median(reference, axis=1) / np.median(other, axis=1)
    low, middle, high = np.percentile(each, [10, 50, 90])
    return float(low), float(middle), float(high)
