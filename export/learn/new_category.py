"""What a category gets that joins a bundle's graphs: fitted to its good images without PyTorch.

Prototypes, whitening, scale and level of the map are learnt as at the end of a training, from what
the float32 graph itself makes of the images. Nothing is rebuilt: that takes codes and a projection
of the category's own, so the rebuilt features have no share in its map.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from hvq_edge.bundle.learnt import CENTRES
from hvq_edge.bundle.manifest import BundleManifest
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.data.versions import version_of
from hvq_edge.export.learn import grown
from hvq_edge.export.learn.judged import JudgedImage
from hvq_edge.export.learn.new_prototypes import centres_of
from hvq_edge.export.learn.tables import Centres, tables_of, write_centres
from hvq_edge.run.record import ImageRecord
from hvq_edge.run.settings import LARGEST_LEVEL, ModelSettings, TrainingSettings
from hvq_edge.training.category_limits import FrameLooks, learn_category_limits
from hvq_edge.training.closed_form import (
    MOST_VARIED,
    TOKENS_A_CATEGORY,
    level_of_good_images,
    scale_of_parts,
    whitened,
)
from hvq_edge.verdict.frame_quality import FrameQuality, measure
from hvq_edge.verdict.image_limits import CategoryLimits
from hvq_edge.verdict.likeness.look import look_at
from hvq_edge.verdict.placement import small_grey

Frame = NDArray[np.uint8]
Named = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Fitted:
    """What belongs to the new category."""

    source: int
    """The category of which it has codes and projection, which count for nothing."""
    rows: grown.Rows
    """What comes into the tables of graphs."""
    centres: dict[str, Centres]
    """By table: its prototypes."""
    state: Named
    """For the run's model: tensors by name, and scale and centre of each table's distances."""
    centre: NDArray[np.float32] | None
    """For the classifier; ``None``: the graphs have none."""
    limits: CategoryLimits

    def write(self, graph: ModelProto, new: int) -> None:
        """Give a graph of any precision the category as its last one; it is changed."""
        _write(graph, new, self.source, self.rows, self.centres)
        if self.centre is not None:
            grown.add_centre(graph, self.centre, new)


class _Fit:
    """Fits one category to its good images."""

    def __init__(
        self,
        graph: ModelProto,
        manifest: BundleManifest,
        fit: Sequence[JudgedImage],
        held_out: Sequence[JudgedImage],
        on_progress: ProgressCallback,
    ) -> None:
        self.graph, self.manifest, self.on_progress = graph, manifest, on_progress
        self.fit, self.held_out = fit, held_out
        self.new = len(manifest.categories)
        self.tables = tables_of(graph)
        training = manifest.training
        known = {} if training is None else training.settings
        self.model = ModelSettings().model_dump() | known.get("model", {})
        self.training = TrainingSettings().model_dump() | known.get("training", {})
        self.rows: dict[str, NDArray[np.float32]] = {}
        self.centres: dict[str, Centres] = {}
        self.centre: NDArray[np.float32] | None = None
        self.state: Named = {}

    def ran(
        self,
        graph: ModelProto,
        outputs: Sequence[str],
        frames: Iterable[Frame],
        stage: str,
        of: int,
    ) -> Iterator[list[NDArray[np.float32]]]:
        """Yield values of a graph that takes every image for the new category."""
        made = grown.always(graph, self.new if graph is not self.graph else 0)
        had = {one.name for one in made.graph.output}
        made.graph.output.extend(
            onnx.helper.make_empty_tensor_value_info(name) for name in outputs if name not in had
        )
        session = onnxruntime.InferenceSession(
            made.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        asked = {one.name for one in session.get_inputs()}
        for done, frame in enumerate(frames, start=1):
            feed = {"frames": frame[None], "category": np.zeros(1, np.int32)}
            found = session.run(list(outputs), {name: feed[name] for name in asked})
            yield [value[0] for value in found]
            self.on_progress(stage, done, of)

    def frames(self, images: Iterable[JudgedImage]) -> Iterator[Frame]:
        return (fit_image(read_image(one.path), self.manifest.frame_shape) for one in images)

    def varied(self, qualities: list[FrameQuality]) -> tuple[int, Iterator[Frame]]:
        """Return how many versions are looked at, and versions; their qualities are kept."""
        some = self.fit[:: max(1, -(-len(self.fit) // MOST_VARIED))]
        numbers = range(1, int(self.training["versions"]) + 1)
        shape = self.manifest.frame_shape

        def made() -> Iterator[Frame]:
            for one in some:
                image, seed = read_image(one.path), int(one.sha256[:12], 16)
                for number in numbers:
                    frame = fit_image(version_of(image, shape, number, seed), shape)
                    qualities.append(measure(frame))
                    yield frame

        return len(some) * len(numbers), made()

    def learn_prototypes(self) -> int:
        """Learn whitening, prototypes and the classifier's centre; return the category nearest."""
        raw, pooled = grown.meets(self.graph), grown.pooled(self.graph)
        outputs = [*raw.values(), *([pooled] if pooled else [])]
        rng = np.random.default_rng((int(self.training["seed"]), self.new))
        per_image = max(1, TOKENS_A_CATEGORY // len(self.fit))
        tokens: dict[str, list[NDArray[np.float32]]] = {table: [] for table in raw}
        whole = []
        frames = self.frames(self.fit)
        for values in self.ran(self.graph, outputs, frames, "features", len(self.fit)):
            for table, value in zip(raw, values, strict=False):
                tokens[table].append(value[rng.permutation(len(value))[:per_image]])
            if pooled:
                whole.append(values[-1])
        for done, (table, sample) in enumerate(tokens.items(), start=1):
            scale, shift = self._standardising(table)
            flat = np.concatenate(sample).astype(np.float64) * scale + shift
            whitening, moved, white = whitened(flat)
            count = self._table(f"{table}.centres").shape[-1]
            if len(white) <= count:  # as many prototypes as tokens or more: some twice
                centres = np.resize(white, (count, white.shape[1]))
            else:
                centres = centres_of(white, count)
            self.centres[table] = centres
            self.rows[f"{table}.whiten.weight"] = _single(scale[:, None] * whitening)
            self.rows[f"{table}.whiten.bias"] = _single((moved + shift @ whitening)[None])
            self.state |= {
                f"{table}.whitening": _single(whitening),
                f"{table}.shift": _single(moved[None]),
                f"{table}.centres": centres,
            }
            self.on_progress("prototypes", done, len(tokens))
        if not whole:
            return 0
        centre = _single(np.stack(whole).mean(0, dtype=np.float64))
        self.centre = self.state[CENTRES] = centre
        nearest = np.square(self._table(CENTRES) - centre).sum(1).argmin()
        return int(grown.owners(self.graph)[nearest])

    def learn_map(self, source: int) -> list[FrameQuality]:
        """Learn scale and level of the map; return what versions of the images look like."""
        graph = self.written(source)
        places = grown.distances(graph)
        qualities: list[FrameQuality] = []
        count, varied = self.varied(qualities)
        parts: list[NDArray[np.float64]] = []
        groups = ((len(self.fit), self.frames(self.fit), "map"), (count, varied, "map of versions"))
        for of, frames, stage in groups:
            for values in self.ran(graph, list(places.values()), frames, stage, of):
                cells = zip(places, values, strict=True)
                parts.append(np.stack([self._by_cell(*one) for one in cells]))
        centre, spread = scale_of_parts(np.stack(parts, axis=1))
        weights = [[float(self.model[f"{table.removesuffix('s')}_weight"])] for table in places]
        scale = np.array(weights) / spread
        others = self._table("map_scale").shape[1] - len(places)
        no_share = np.zeros((others, scale.shape[1]))
        self.rows["map_scale"] = _single(np.concatenate([no_share, scale]))
        self.rows["map_shift"] = _single(-(scale * centre).sum(0))
        for table, *own in zip(places, scale, centre, strict=True):
            for what, values in zip(("scale", "centre"), own, strict=True):
                self.state[f"{table}.{what}"] = _single(values)
        self._learn_level(source)
        return qualities

    def _by_cell(self, table: str, distance: NDArray[np.float32]) -> NDArray[np.float64]:
        """Give each cell its distance: of four fine ones the largest."""
        own, grid = distance.astype(np.float64), self.manifest.tiling.grid
        if table == "prototypes":
            return own
        largest: NDArray[np.float64] = own.reshape(-1, grid, 2, grid, 2).max((2, 4))
        return largest.reshape(-1)

    def _learn_level(self, source: int) -> None:
        own = grown.level(self.graph)
        if own is None:
            return
        found = 1.0, LARGEST_LEVEL
        if self.model["image_level"] == "learnt":
            self.rows["level_share"] = _single(0.0)  # so that scores are the highest windows
            graph = self.written(source)
            fit, held_out = (
                np.array(
                    [*self.ran(graph, [own, "score"], self.frames(images), "level", len(images))],
                    np.float64,
                ).reshape(-1, 2)
                for images in (self.fit, self.held_out)
            )
            found = level_of_good_images(fit, held_out)
        for name, value in zip(("level_share", "level_limit"), found, strict=True):
            self.rows[name] = self.state[name] = _single(value)

    def written(self, source: int) -> ModelProto:
        """Return the float32 graph with the category as far as it is learnt."""
        made = ModelProto()
        made.CopyFrom(self.graph)
        _write(made, self.new, source, self.rows, self.centres)
        return made

    def learn_limits(self, borne: list[FrameQuality]) -> CategoryLimits:
        """Learn which of its images are usable."""
        looks = FrameLooks([], [], np.zeros((0, 0, 0), np.uint8))
        greys, records = [], []
        for one in self.fit:
            image = read_image(one.path)
            frame = fit_image(image, self.manifest.frame_shape)
            looks.qualities.append(measure(frame))
            looks.looks.append(look_at(image, frame))
            greys.append(small_grey(frame).astype(np.uint8))
            records.append(
                ImageRecord(path=one.name, category=one.category, sha256=one.sha256, use="fit")
            )
        seen = FrameLooks(looks.qualities, looks.looks, np.stack(greys))
        name = self.fit[0].category
        return learn_category_limits(records, seen, {name: borne})[name]

    def _table(self, name: str) -> NDArray[np.float32]:
        found = grown.read_rows(self.graph, name)
        assert found is not None  # an export of this version writes it
        return found

    def _standardising(self, table: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scale and shift that standardise what meets a table's whitening.

        Coarse tokens are standardised there. Fine ones come raw, and their standardisation is in
        the whitening: the channels are those of the feature statistics with which it is symmetric.
        """
        weight = self._table(f"{table}.whiten.weight")[0].astype(np.float64)
        channels = len(weight)
        if table == "prototypes":
            return np.ones(channels), np.zeros(channels)
        scales, shifts = (
            self._table(name).astype(np.float64) for name in ("feature_scale", "feature_shift")
        )

        def odd(start: int) -> float:
            own = weight / scales[start : start + channels, None]
            return float(np.abs(own - own.T).max() / np.abs(own).max())

        start = min(range(len(scales) - channels + 1), key=odd)
        return scales[start : start + channels], shifts[start : start + channels]


def _single(values: NDArray[np.float64] | float) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def fit_category(
    graph: ModelProto,
    manifest: BundleManifest,
    fit: Sequence[JudgedImage],
    held_out: Sequence[JudgedImage],
    on_progress: ProgressCallback = silent,
) -> Fitted:
    """Fit a new category to its good images.

    Args:
        graph: the float32 graph of the bundle that gets it.
        manifest: of that bundle.
        fit: images to learn from.
        held_out: good images that are not learnt from.
        on_progress: called within every stage.
    """
    one = _Fit(graph, manifest, fit, held_out, on_progress)
    source = one.learn_prototypes()
    limits = one.learn_limits(one.learn_map(source))
    return Fitted(source, one.rows, one.centres, one.state, one.centre, limits)


def _write(
    graph: ModelProto, new: int, source: int, rows: grown.Rows, centres: dict[str, Centres]
) -> None:
    grown.grow(graph, new, source)
    grown.write_rows(graph, new, rows)
    for table, own in centres.items():
        write_centres(graph, table, new, range(len(own)), own)
