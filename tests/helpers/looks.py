"""What good training images of textures look like."""

from helpers.images import make_texture

from hvq_edge.data.images import fit_image
from hvq_edge.verdict.likeness.look import Look, look_at
from hvq_edge.verdict.likeness.usual import UsualLook, UsualValue

ANYTHING = UsualLook(
    images=1,
    **dict.fromkeys(Look._fields, UsualValue(median=1, spread=9, lowest=1e-9, highest=1e9)),
)
"""Nothing is unlike it."""


def look_of(image, side: int = 224) -> Look:
    return look_at(image, fit_image(image, side))


def texture_looks(count: int, *, first: int = 0, change=lambda image: image) -> list[Look]:
    """Looks of textures of the model's size, each changed first."""
    seeds = range(first, first + count)
    return [look_of(change(make_texture(seed, height=224, width=224))) for seed in seeds]
