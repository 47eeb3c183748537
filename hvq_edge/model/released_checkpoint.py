"""The layout of the authors' released checkpoint, and its translation into ours.

The release (class ``HVQ_TR_switch_OT``, EfficientNet-B4, 15 MVTec AD classes) is one dictionary
under the key ``state_dict`` with ``module.`` before each name. Codebooks are stored transposed,
one entry a class; the attention projections stacked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from hvq_edge.common.wording import counted
from hvq_edge.errors import CheckpointError
from hvq_edge.model.backbone_weights import to_published
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.settings import ModelSettings, load_settings

MVTEC_CATEGORIES = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut",
    "pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip
"""In the order of the released class index."""

# In the checkpoint and not in the network: the classifier head and a projection nothing uses.
_UNUSED = re.compile(r"enc\.(_conv_head|_bn1|_fc)\.|input_proj\.|.*num_batches_tracked$")
_BLOCK = re.compile(r"enc\._blocks\.(\d+)\.")


def released_settings() -> ModelSettings:
    """Return the model settings of the released checkpoint: the ``paper`` preset."""
    return load_settings("paper").model


def from_released(state: Mapping[str, Any], categories: int) -> dict[str, Tensor]:
    """Translate a released state dict into that of :class:`HVQTrans`.

    Args:
        state: the checkpoint, or its ``state_dict``, with or without ``module.`` prefixes.
        categories: number of classes the checkpoint must have.

    Returns:
        A state dict that loads strictly into ``HVQTrans(released_settings(), categories)``.

    Raises:
        CheckpointError: entries are missing, unknown or of another shape; all are counted and
            the first few named.
    """
    inner = state.get("state_dict", state)
    if not isinstance(inner, Mapping):
        raise CheckpointError("the checkpoint's 'state_dict' is not a dictionary.")
    released = {str(name).removeprefix("module."): value for name, value in inner.items()}
    template = HVQTrans(released_settings(), categories)
    ours = template.state_dict()
    faults = []
    used = set()
    for entry in _entries(template):
        used.add(entry.released)
        if entry.released not in released:
            faults.append(f"missing: {entry.released}")
            continue
        target = ours[entry.key] if entry.category is None else ours[entry.key][entry.category]
        value = released[entry.released]
        if not isinstance(value, Tensor) or not value.dim():
            faults.append(f"no tensor of any shape: {entry.released}")
            continue
        part = entry.part(value)
        if part.shape != target.shape:
            faults.append(f"shape of {entry.released}: {tuple(value.shape)} does not fit")
            continue
        target.copy_(part)
    faults += [
        f"unknown: {name}"
        for name in released
        if name not in used and not _UNUSED.match(name) and not _beyond_last_tap(name, template)
    ]
    if faults:
        shown = "\n".join(f"  - {fault}" for fault in faults[:8])
        more = f"\n  … and {len(faults) - 8} more" if len(faults) > 8 else ""
        entries = "1 entry differs" if len(faults) == 1 else f"{len(faults)} entries differ"
        raise CheckpointError(
            f"this is not a released HVQ-Trans checkpoint with "
            f"{counted(categories, 'category', 'categories')} "
            f"({entries}):\n{shown}{more}",
            next_step="give as many --categories as the checkpoint was trained on, in its order",
        )
    return ours


def _beyond_last_tap(name: str, model: HVQTrans) -> bool:
    match = _BLOCK.match(name)
    return match is not None and int(match[1]) >= len(model.backbone.blocks)


class _Entry(NamedTuple):
    """Where one tensor of ours comes from."""

    released: str
    key: str
    category: int | None = None
    """Index into our stacked tensor."""
    third: int | None = None
    """Which third of the stacked query, key and value projection."""

    def part(self, value: Tensor) -> Tensor:
        """Cut and turn the released tensor into our layout."""
        if self.third is not None and len(value) % 3 == 0:
            value = value.chunk(3)[self.third]
        if self.released.endswith((".embed", ".embed_avg")):
            return value.T
        # A 1x1 convolution in the release is a linear here.
        return value.flatten(1) if self.key == "input_projection.weight" else value


def _entries(model: HVQTrans) -> Iterator[_Entry]:
    layers = range(model.settings.layers)
    for name in model.backbone.state_dict():
        if not name.endswith("num_batches_tracked"):
            yield _Entry("enc." + to_published(name), "backbone." + name)
    for part in ("weight", "bias"):
        yield _Entry(f"quantize_conv_t.{part}", f"input_projection.{part}")
        yield _Entry(f"decoder.norm.{part}", f"decoder_norm.{part}")
        for category in range(model.categories):
            yield _Entry(f"output_proj_list.{category}.{part}", f"output_{part}", category)
    yield _Entry("pos_embed.row_embed.weight", "position.row")
    yield _Entry("pos_embed.col_embed.weight", "position.column")
    for level in range(model.settings.levels):
        for category in range(model.categories):
            source, key = f"quantize_list_{level + 1}.{category}", f"codebooks.{level}"
            yield _Entry(f"{source}.embed", f"{key}.codes", category)
            yield _Entry(f"{source}.cluster_size", f"{key}.usage", category)
            yield _Entry(f"{source}.embed_avg", f"{key}.sums", category)
    for layer in layers:
        source, key = f"encoder.layers.{layer}", f"encoder.{layer}"
        yield from _attention(f"{source}.self_attn", f"{key}.self_attention")
        yield from _layer(source, key, norms=2)
        source, key = f"decoder.layers.{layer}", f"decoder.{layer}"
        yield from _attention(f"{source}.self_attn", f"{key}.self_attention")
        yield from _attention(f"{source}.multihead_attn", f"{key}.cross_attention")
        yield from _layer(source, key, norms=3)


def _attention(source: str, key: str) -> Iterator[_Entry]:
    for part in ("weight", "bias"):
        for third, name in enumerate(("query", "key", "value")):
            yield _Entry(f"{source}.in_proj_{part}", f"{key}.{name}.{part}", third=third)
        yield _Entry(f"{source}.out_proj.{part}", f"{key}.out.{part}")


def _layer(source: str, key: str, norms: int) -> Iterator[_Entry]:
    for part in ("weight", "bias"):
        for linear in ("linear1", "linear2"):
            yield _Entry(f"{source}.{linear}.{part}", f"{key}.feedforward.{linear}.{part}")
        for norm in range(1, norms + 1):
            yield _Entry(f"{source}.norm{norm}.{part}", f"{key}.norm{norm}.{part}")
