"""A trial of a bundle where it is to run, before it comes into use.

The bundle's known answers say what is right (:mod:`hvq_edge.runtime.known_answers`). Without them a
grey frame shows at least that the graphs load and compute.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.opened import Bundle
from hvq_edge.errors import GateFailed, HvqEdgeError
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.engine_check import check_engine_here
from hvq_edge.runtime.known_answers import read_known_answers
from hvq_edge.runtime.open_engine import choose, open_engine
from hvq_edge.verdict.judgement import Judgement, judgements, refusal

_GREY = 128
_NEXT = "run hvq-edge verify on the host; if it passes, run hvq-edge doctor here"


def self_test(bundle: Bundle) -> str:
    """Run a bundle once, as ``hvq-edge stream`` would, and look at what comes out.

    Returns:
        What was tried, in words; and what else failed here, which the line would do without.

    Raises:
        GateFailed: it does not load or run, decides nothing on a known image, or gives another
            answer than the known one.
    """
    try:
        choice = choose(bundle)
        how = f"{choice.precision} on {choice.backend}"
        with open_engine(
            bundle, precision=choice.precision, backend=choice.backend, unchecked=True
        ) as engine:
            check = check_engine_here(engine, bundle, afresh=True)
            if check is None:
                (judgement,) = _judged(engine, bundle, _grey(bundle), 0)
                if not judgement.finite or math.isnan(judgement.margin):
                    raise GateFailed(f"{how} gives numbers that are not finite.", next_step=_NEXT)
                return (
                    f"{how}: a grey frame, score {judgement.score:.4g} (no known answers: export "
                    "again, or run hvq-edge verify)"
                )
            if check.faults:
                raise GateFailed(f"{how} {check}.", next_step=_NEXT)
            answers = read_known_answers(bundle)
            assert answers is not None  # the check was made with them
            for frame, category in zip(answers.frames, answers.category.tolist(), strict=True):
                (judgement,) = _judged(engine, bundle, frame, category)
                refused = refusal(judgement, bundle.checks.fault(frame, judgement))
                if refused is not None:
                    raise GateFailed(
                        f"{how} decides nothing on a known image: {refused}.", next_step=_NEXT
                    )
    except GateFailed:
        raise
    except HvqEdgeError as error:
        raise GateFailed(
            f"the bundle does not run here: {error.cause}", next_step=error.next_step
        ) from error
    return "; ".join((f"{how}: {check}", *choice.failed))


def _grey(bundle: Bundle) -> NDArray[np.uint8]:
    return np.full((*bundle.manifest.frame_shape, 3), _GREY, np.uint8)


def _judged(
    engine: Engine, bundle: Bundle, frame: NDArray[np.uint8], category: int
) -> list[Judgement]:
    told = bundle.manifest.category_mode == "input"
    output = engine.run(frame[None], np.array([category], np.int32) if told else None)
    return judgements(output, bundle.manifest.categories)
