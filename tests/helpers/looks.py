"""What good training images of textures look like."""

from helpers.images import make_texture

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.data.images import fit_image
from hvq_edge.verdict.image_limits import CategoryLimits, ImageLimits
from hvq_edge.verdict.likeness.look import Look, look_at
from hvq_edge.verdict.likeness.usual import UsualLook, UsualValue, learn_usual

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


def used_to(bundle: Bundle, looks: list[Look]) -> Bundle:
    """The bundle as if its only category had been trained on images that look so; written."""
    image = ImageLimits(brightness_low=0, brightness_high=255, contrast_low=0, sharpness_low=0)
    (category,) = bundle.manifest.categories
    limits = {category: CategoryLimits(image=image, usual=learn_usual(looks))}
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"category_limits": limits}))
    return open_bundle(bundle.path)
