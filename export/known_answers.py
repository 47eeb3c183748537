"""Known answers (``hvq_edge.runtime.known_answers``), learnt from engines that agree."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import read_frame
from hvq_edge.errors import HvqEdgeError
from hvq_edge.runtime.choice.measured_choice import CPU_BACKENDS
from hvq_edge.runtime.cpu.torch_engine import TorchEngine
from hvq_edge.runtime.engine import EngineOutput, Frames
from hvq_edge.runtime.known_answers import (
    Answer,
    Deviation,
    KnownAnswers,
    compare,
    join,
    of_nothing,
)
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.verdict.judgement import judgements, refusal

logger = logging.getLogger(__name__)

KEPT = 4
"""Images that travel with the bundle: 40 to 120 kB each at 224 pixels."""
LEARNT_FROM = 12
"""Images that tolerances are learnt from."""
_CODES_AGREE = 0.8
"""Of engines that compute the same graph rightly, on the worst level of the worst image: what
``hvq-edge verify`` asks of a reduced precision as a whole."""
_LEAST = Deviation(codes=0.015, map=0.03, score=0.005, margin=0.01)
"""Other processors round otherwise, and a token between two codes may take either; the score's is
a share of the largest value of the known maps."""
_TOKENS = 2
"""That may take another code in any case: of a small image they are more than the share above."""
_MOST = 0.5
"""Of what an engine is off that computes nothing: a tolerance above it would tell too little."""
_NONE = "no known answers are learnt, and no engine can be held against them where it runs: %s"


def learn_known_answers(
    bundle: Bundle,
    run: Path,
    images: Sequence[tuple[Path, str]],
    on_progress: ProgressCallback = silent,
) -> KnownAnswers | None:
    """Learn what each precision of a bundle says of a few images, and how exactly.

    Every graph runs on every library of CPUs that is here. The one that is nearest to the PyTorch
    model gives the answers. What may differ is twice the difference of the others that agree with
    it, or the precision's own distance from the PyTorch model where that is more: float16 is
    computed in float32 on a CPU, so two libraries say nothing about rounding there.

    Args:
        bundle: with its graphs; its manifest need not be written yet.
        run: that it is exported from.
        images: each with its category. Those that the line would decide on are used.
        on_progress: told after each precision.

    Returns:
        ``None``, after a warning: the line decides on no image, or a model runs on no library that
        is here.
    """
    if not images:
        logger.warning(_NONE, "there is no image to learn them from")
        return None
    manifest = bundle.manifest
    known = manifest.category_mode != "auto"
    ordered = [images[number] for number in spread_over([name for _, name in images])]
    with TorchEngine(run, device="cpu", bundle=bundle) as model:
        frames, given, right = _decided(bundle, model, ordered)
    if not right:
        logger.warning(_NONE, "the line decides on no image that there is")
        return None
    found: dict[Precision, Mapping[str, EngineOutput]] = {}
    for done, precision in enumerate(manifest.models, start=1):
        found[precision] = _outputs(bundle, precision, frames, given)
        on_progress("known answers", done, len(manifest.models))
    unknown = [name for name, outputs in found.items() if not outputs]
    if unknown:
        libraries = " nor ".join(CPU_BACKENDS)
        logger.warning(_NONE, f"{', '.join(unknown)} runs here neither on {libraries}")
        return None
    precisions = {name: _answer(outputs, join(right), known) for name, outputs in found.items()}
    # Of these the line decides on in every precision, so a self test can insist on it.
    sure = [
        number
        for number in range(len(frames))
        if all(
            one.margin is None or one.margin[number] > one.tolerance.margin
            for one in precisions.values()
        )
    ]
    kept = (sure or list(range(len(frames))))[:KEPT]
    return KnownAnswers(
        frames[kept],
        given[kept],
        {
            name: replace(
                one,
                category=one.category[kept],
                score=one.score[kept],
                map=one.map[kept],
                codes=one.codes[kept],
                margin=None if one.margin is None else one.margin[kept],
            )
            for name, one in precisions.items()
        },
    )


def spread_over(categories: Sequence[str]) -> list[int]:
    """Return positions so ordered that the first ones are of as many categories as there are."""
    seen: dict[str, int] = {}
    turns = []
    for number, name in enumerate(categories):
        seen[name] = seen.get(name, -1) + 1
        turns.append((seen[name], number))
    return [number for _, number in sorted(turns)]


def _decided(
    bundle: Bundle, model: TorchEngine, images: Sequence[tuple[Path, str]]
) -> tuple[Frames, NDArray[np.int32], list[EngineOutput]]:
    """Return the first images that the line decides on: frames, categories, PyTorch's outputs."""
    manifest = bundle.manifest
    frames: list[Frames] = []
    given: list[int] = []
    right: list[EngineOutput] = []
    for path, name in images:
        frame = read_frame(path, manifest.frame_shape)
        index = manifest.categories.index(name)
        told = model.info.categories.index(name)  # a bundle of one category has no other
        auto = manifest.category_mode == "auto"
        output = model.run(frame[None], None if auto else np.array([told], np.int32))
        if not auto:
            output["category"] = np.array([index], np.int32)
        (judgement,) = judgements(output, manifest.categories)
        if refusal(judgement, bundle.checks.fault(frame, judgement)) is None:
            frames.append(frame)
            given.append(index)
            right.append(output)
        if len(frames) == LEARNT_FROM:
            break
    return (
        np.stack(frames) if frames else np.zeros((0, *manifest.frame_shape, 3), np.uint8),
        np.array(given, np.int32),
        right,
    )


def _outputs(
    bundle: Bundle, precision: Precision, images: Frames, given: NDArray[np.int32]
) -> Mapping[str, EngineOutput]:
    """Return what each library that is here says, one image at a time."""
    told = bundle.manifest.category_mode == "input"
    outputs: dict[str, EngineOutput] = {}
    for backend in CPU_BACKENDS:
        if find_spec(backend) is None:
            continue
        try:
            with open_engine(
                bundle, precision=precision, backend=backend, unchecked=True
            ) as engine:
                outputs[backend] = join(
                    [
                        engine.run(images[i : i + 1], given[i : i + 1] if told else None)
                        for i in range(len(images))
                    ]
                )
        except HvqEdgeError:  # it does not run here: the other one may
            continue
    return outputs


def _answer(
    outputs: Mapping[str, EngineOutput], right: EngineOutput, known_category: bool
) -> Answer:
    def distance(one: EngineOutput, other: EngineOutput) -> Deviation:
        return compare(one, _exactly(other, known_category), known_category=known_category)[0]

    best = min(outputs, key=lambda name: distance(outputs[name], right).codes)
    answer = outputs[best]
    others = [distance(one, answer) for name, one in outputs.items() if name != best]
    agreeing = [one for one in others if one.codes <= 1 - _CODES_AGREE]
    own = distance(answer, right)
    scale = float(np.abs(answer["map"]).max())
    least = {
        **asdict(_LEAST),
        "codes": max(_LEAST.codes, _TOKENS / answer["codes"].shape[2]),
        "score": _LEAST.score * scale,
    }
    most = {
        name: max(
            [least[name], *(2 * asdict(one)[name] for one in agreeing)]
            + [value for value in [asdict(own)[name]] if np.isfinite(value)]
        )
        for name in least
    }
    exact = _exactly(answer, known_category)
    nothing = asdict(of_nothing(exact))
    most = {name: min(value, _MOST * nothing[name]) for name, value in most.items()}
    return Answer(
        exact.category, exact.score, exact.map, exact.codes, exact.margin, Deviation(**most)
    )


def _exactly(output: EngineOutput, known_category: bool) -> Answer:
    return Answer(
        category=output["category"].astype(np.int32),
        score=output["score"].astype(np.float32),
        map=output["map"].astype(np.float32),
        codes=output["codes"].astype(np.int32),
        margin=None if known_category else output["margin"].astype(np.float32),
        tolerance=Deviation(),
    )
