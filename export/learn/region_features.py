"""What the network sees in a region of an image, as a vector: like regions have like vectors.

It is what the graph holds against its prototypes, averaged over the region. What else was tried:
docs/how-to/sinks.md, "Rejects that look alike".
"""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from hvq_edge.bundle.opened import Bundle
from hvq_edge.data.images import fit_image
from hvq_edge.errors import BundleError
from hvq_edge.export.learn.tables import tables_of, with_tokens
from hvq_edge.run.tiling import Tiling


class RegionFeatures:
    """Describes regions by the float32 graph of a bundle.

    Args:
        bundle: whose file is checked as it is read.

    Raises:
        BundleError: the file is changed, or the graph has no prototypes.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._manifest = bundle.manifest
        graph = onnx.load_from_string(bundle.read(bundle.manifest.models["fp32"]))
        try:
            table = tables_of(graph)[0]
        except BundleError as error:
            raise BundleError(
                "this bundle's graphs have no prototypes, so there are no features of regions.",
                next_step="leave --bundle out: the report then has no groups",
            ) from error
        graph, outputs = with_tokens(graph)
        self._output = outputs[table]
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def __call__(
        self, image: NDArray[np.uint8], category: str, contour: NDArray[np.int32]
    ) -> NDArray[np.float32] | None:
        """Describe a region.

        Args:
            image: uint8 ``[height, width, 3]``, RGB.
            category: what it shows.
            contour: outline of the region, ``[points, 2]``: x and y in pixels of the image.

        Returns:
            float32 ``[channels]``; ``None``: the bundle does not know the category, or the region
            lies outside the image.
        """
        weights = token_weights(contour, image.shape[:2], self._manifest.tiling)
        if category not in self._manifest.categories or not weights.any():
            return None
        described: NDArray[np.float32] = weights @ self.tokens(image, category)
        return described

    def tokens(self, image: NDArray[np.uint8], category: str) -> NDArray[np.float32]:
        """Return the features of an image, ``[tokens, channels]``, whitened."""
        feed = {"frames": fit_image(image, self._manifest.frame_shape)[None]}
        if self._manifest.category_mode == "input":
            index = self._manifest.categories.index(category)
            feed["category"] = np.array([index], np.int32)
        (tokens,) = self._session.run([self._output], feed)
        flat: NDArray[np.float32] = tokens.reshape(-1, tokens.shape[-1])
        return flat


def token_weights(
    contour: NDArray[np.int32], shape: tuple[int, ...], tiling: Tiling
) -> NDArray[np.float32]:
    """Return how much each token counts in a region.

    Args:
        contour: outline of the region, ``[points, 2]``: x and y in pixels of the image.
        shape: height and width of the image.
        tiling: how a frame becomes tokens.

    Returns:
        ``[tokens]``: together 1, or all 0 for a region outside the image.
    """
    height, width = tiling.frame_shape
    scale = np.array([width / shape[1], height / shape[0]])
    outline = np.rint((contour + 0.5) * scale - 0.5).astype(np.int32)[:, None]
    inside = np.zeros((height, width), np.float32)
    cv2.drawContours(inside, [outline], -1, 1.0, cv2.FILLED)
    rows, columns = tiling.map_shape
    covered = cv2.resize(inside, (columns, rows), interpolation=cv2.INTER_AREA).ravel()
    share = covered[tiling.cells_of_tokens()]
    return np.asarray(share / max(share.sum(), 1e-9), np.float32)
