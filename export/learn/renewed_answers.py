"""Known answers of a bundle whose prototypes changed: no PyTorch, so held to the former ones."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from importlib.util import find_spec

import numpy as np

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.errors import GateFailed, HvqEdgeError
from hvq_edge.runtime.choice.measured_choice import CPU_BACKENDS
from hvq_edge.runtime.engine import EngineOutput
from hvq_edge.runtime.known_answers import (
    Answer,
    KnownAnswers,
    compare,
    join,
    read_known_answers,
)
from hvq_edge.runtime.open_engine import AUTO, open_engine


def renewed_answers(
    before: Bundle, now: Bundle, learnt: Collection[str], backend: str = AUTO
) -> KnownAnswers | None:
    """Return what the new graphs are to say of the images of the former known answers.

    Of categories that learnt nothing the answers stay. Of the others codes and category stay,
    score, map and margin are those of the library that comes nearest to what stays; the tolerances
    stay as well.

    Args:
        before: the bundle that learnt.
        now: the new graphs; its manifest need not be written yet.
        learnt: categories that learnt.
        backend: the only library to ask; ``auto``: all that are here.

    Returns:
        ``None``: the former bundle has no known answers.

    Raises:
        GateFailed: no library here gives what stays: what learns must compute rightly.
    """
    answers = read_known_answers(before)
    if answers is None:
        return None
    numbers = [number for number, name in enumerate(now.manifest.categories) if name in learnt]
    precisions = {
        precision: _renewed(now, precision, answers, answer, numbers, backend)
        for precision, answer in answers.precisions.items()
    }
    return replace(answers, precisions=precisions)


def _renewed(
    now: Bundle,
    precision: Precision,
    answers: KnownAnswers,
    answer: Answer,
    learnt: list[int],
    only: str,
) -> Answer:
    known_category = now.manifest.category_mode != "auto"
    changed = np.isin(answer.category, learnt)
    found: list[tuple[float, Answer]] = []
    faults: list[str] = []
    for backend in CPU_BACKENDS:
        if find_spec(backend) is None or only not in (AUTO, backend):
            continue
        try:
            output = _run(now, precision, backend, answers)
        except HvqEdgeError as error:  # it does not run here: the other one may
            faults.append(f"{backend}: {error.cause}")
            continue
        made = replace(
            answer,
            score=np.where(changed, output["score"], answer.score).astype(np.float32),
            map=np.where(changed[:, None, None], output["map"], answer.map).astype(np.float32),
            margin=None
            if answer.margin is None
            else np.where(changed, output["margin"], answer.margin).astype(np.float32),
        )
        off, why = compare(output, made, known_category=known_category)
        wrong = [why] if why else list(off.beyond(answer.tolerance))
        if wrong:
            faults.append(f"{backend}: {'; '.join(wrong)}")
        else:
            found.append((off.codes, made))
    if not found:
        raise GateFailed(
            f"{precision} is computed rightly by no library that is here: {' and '.join(faults)}.",
            next_step="learn on a machine where hvq-edge doctor --bundle finds the bundle right",
        )
    return min(found, key=lambda one: one[0])[1]


def _run(now: Bundle, precision: Precision, backend: str, answers: KnownAnswers) -> EngineOutput:
    told = now.manifest.category_mode == "input"
    with open_engine(now, precision=precision, backend=backend, unchecked=True) as engine:
        return join(
            [
                engine.run(answers.frames[i : i + 1], answers.category[i : i + 1] if told else None)
                for i in range(len(answers.frames))
            ]
        )
