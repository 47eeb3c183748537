"""A bundle's model on NVIDIA's Triton Inference Server: many cameras, one GPU.

The server runs a repository that ``hvq-edge export --triton`` wrote; the bundle stays here and says
which graph, categories and thresholds it is. Through gRPC, by the KServe v2 protocol.
https://github.com/triton-inference-server/client
"""

from __future__ import annotations

import threading
import time
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.precision import FOR_GPUS
from hvq_edge.bundle.verification import read_verdicts
from hvq_edge.common.closeable import Closeable
from hvq_edge.common.extras import require
from hvq_edge.errors import BundleError, GateFailed, ServerFailed, SettingsError
from hvq_edge.runtime.contract import (
    FRAMES,
    closed_error,
    graph_feed,
    graph_outputs,
    graph_result,
)
from hvq_edge.runtime.engine import EngineInfo, EngineOutput, Frames
from hvq_edge.runtime.engine_check import checked
from hvq_edge.runtime.engine_names import known_precisions

GRAPH_PARAMETER = "hvq_edge.onnx_sha256"
"""This parameter of a model's configuration holds the SHA-256 of the ONNX file behind it."""

TIMEOUT_S = 10.0
"""A server that has not answered by then counts as gone."""

RECHECK_S = 1.0
"""How old what is known of the server's model may be: it can be restarted with another."""

_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC waits ever longer before it tries a server again that was away, up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_KINDS = {"uint8": "UINT8", "int32": "INT32"}
_WHOLE_FRAME = 1  # dimension of what is one number a frame: the server cannot say none


class TritonEngine(Closeable):
    """Runs one model of a server.

    Any number of threads may call :meth:`run` and :meth:`close`; they take turns, because the
    client is one thread's.

    Args:
        url: ``host:port``, ``grpc://host:port`` or ``grpcs://host:port`` (TLS).
        bundle: whose repository the server runs.
        precision: of the model; it must be ready.
        timeout: seconds for one answer.

    Raises:
        SettingsError: an address that is none.
        MissingCapability: ``tritonclient`` is not installed.
        ServerFailed: no server answers.
        BundleError: the server has no such model, or that of another bundle.
    """

    def __init__(
        self, url: str, bundle: Bundle, precision: Precision, *, timeout: float = TIMEOUT_S
    ) -> None:
        self._grpc, self._error = _client_library()
        address, secure = _address(url)
        self._lock = threading.Lock()
        self._timeout = timeout
        self._where = f"the Triton server at {address}"
        self._name = model_name(precision)
        self._graph = (bundle, precision)
        self._client: Any = self._grpc.InferenceServerClient(
            address, ssl=secure, channel_args=_CHANNEL
        )
        try:
            server = self._ask("get_server_metadata")
            config = self._known_model()
        except BaseException:
            self.close()
            raise
        self._most = max(int(config.max_batch_size), 1)
        manifest = bundle.manifest
        # Of a frame; None: any, because no verdict hangs on it.
        self._shapes = {"map": manifest.tiling.map_shape, "codes": None}
        self.info = EngineInfo(
            backend="triton",
            precision=precision,
            device=f"{address}, Triton {server.version}, {config.platform or config.backend}",
            frame_shape=manifest.frame_shape,
            categories=manifest.categories,
            category_mode=manifest.category_mode,
        )

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        """Judge a batch; see :meth:`hvq_edge.runtime.engine.Engine.run`.

        Raises:
            InputError: frames or categories of another shape, dtype or range.
            ServerFailed: the server is away, fails or does not answer in time.
            BundleError: it was restarted, and runs another graph.
        """
        feed = graph_feed(frames, category, self.info)
        with self._lock:
            if self._client is None:
                raise closed_error()
            if time.monotonic() > self._known_until:
                self._known_model()
            parts = [
                self._infer({name: values[i : i + self._most] for name, values in feed.items()})
                for i in range(0, len(feed[FRAMES]), self._most)
            ]
        results = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return graph_result(results, feed, self.info)

    def close(self) -> None:
        """End the connection; calling it twice is fine."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    def _known_model(self) -> Any:  # noqa: ANN401  # tritonclient is untyped
        """Return the configuration of the server's model, which is the bundle's."""
        config = self._ask("get_model_config", self._name).config
        _check_graph(*self._graph, config, self._where)
        self._known_until = time.monotonic() + RECHECK_S
        return config

    def _infer(self, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        count = len(feed[FRAMES])
        inputs = []
        for name, values in feed.items():
            shaped = values if values.ndim > 1 else values.reshape(count, _WHOLE_FRAME)
            one = self._grpc.InferInput(name, list(shaped.shape), _KINDS[shaped.dtype.name])
            one.set_data_from_numpy(shaped)
            inputs.append(one)
        names = graph_outputs(self.info.category_mode)
        answer = self._ask(
            "infer",
            self._name,
            inputs,
            outputs=[self._grpc.InferRequestedOutput(name) for name in names],
        )
        results = {}
        for name in names:
            values = answer.as_numpy(name)
            shape = self._shapes.get(name, (_WHOLE_FRAME,))
            if (
                values is None
                or len(values) != count
                or values.dtype.kind not in "fi"
                or (shape is not None and values.shape[1:] != shape)
            ):
                raise ServerFailed(
                    f"{self._where} answers without {name} for each of {count} frames.",
                    next_step="write the repository again with hvq-edge export --triton",
                )
            results[name] = np.array(values.reshape(count) if shape == (_WHOLE_FRAME,) else values)
        return results

    def _ask(self, call: str, *arguments: object, **named: object) -> Any:  # noqa: ANN401
        """Ask the server; its errors become ours."""
        named["client_timeout"] = self._timeout
        try:
            return getattr(self._client, call)(*arguments, **named)
        except self._error as error:
            self._known_until = 0.0  # what answers next may be another
            said = (error.message() or "it gave no reason").rstrip(".")
            status = str(error.status() or "")
            if "UNAVAILABLE" in status:
                raise ServerFailed(
                    f"{self._where} cannot be reached: {said}.",
                    next_step="see whether tritonserver runs there, and that the port is that of "
                    "gRPC (8001)",
                ) from error
            if "DEADLINE_EXCEEDED" in status:
                raise ServerFailed(
                    f"{self._where} gave no answer within {self._timeout:g} s.",
                    next_step="see whether it is overloaded: its metrics are at port 8002",
                ) from error
            if call == "get_model_config":
                raise BundleError(
                    f"{self._where} has no model {self._name}: {said}.",
                    next_step="give tritonserver what hvq-edge export --triton wrote",
                ) from error
            raise ServerFailed(
                f"{self._where} fails: {said}.", next_step="look at tritonserver's log"
            ) from error


def model_name(precision: Precision) -> str:
    """Return what a model of a bundle is called on a server, such as ``hvq_edge_int8_fp16``."""
    return f"hvq_edge_{precision.replace('-', '_')}"


def open_triton_engine(
    url: str, bundle: Bundle, *, precision: str = "auto", timeout: float = TIMEOUT_S
) -> TritonEngine:
    """Open a bundle's model on a server.

    Args:
        url: see :class:`TritonEngine`.
        bundle: whose repository the server runs.
        precision: ``auto``: int8-fp16, fp16, int8, fp32, the first that the server has,
            ``hvq-edge verify`` did not reject and that gives the bundle's known answers.
        timeout: seconds for one answer.

    Raises:
        SettingsError: an unknown precision, or an address that is none.
        MissingCapability: ``tritonclient`` is not installed.
        ServerFailed: no server answers.
        BundleError: the server has no model of this bundle.
        GateFailed: what it has gives other answers than the known ones.
    """
    verdicts = read_verdicts(bundle)
    reasons = []
    wrong: GateFailed | None = None
    for one in known_precisions(precision) or FOR_GPUS:
        if one not in bundle.manifest.models:
            reasons.append(f"the bundle has no {one} model")
        elif precision == "auto" and not verdicts.get(one, True):
            reasons.append(f"hvq-edge verify did not pass {one}")
        else:
            try:
                return checked(TritonEngine(url, bundle, one, timeout=timeout), bundle)
            except BundleError as error:
                reasons.append(error.cause.rstrip("."))
            except GateFailed as error:
                wrong = wrong or error
    if wrong is not None:
        raise wrong
    raise BundleError(
        f"no model of {bundle.path} can be used: {'; '.join(reasons)}.",
        next_step="write the repository with hvq-edge export --triton, and give it to tritonserver",
    )


def _client_library() -> tuple[Any, Any]:
    """Return tritonclient's gRPC module, and what its calls raise."""
    return require("tritonclient.grpc"), require("tritonclient.utils").InferenceServerException


def _address(url: str) -> tuple[str, bool]:
    """Return host and port, and whether to use TLS."""
    none = SettingsError(
        "what was given is no address of a Triton server.",  # it may hold credentials
        next_step="give its gRPC port: grpc://HOST:8001, or grpcs:// for TLS",
    )
    try:
        parts = urlsplit(url if "://" in url else f"grpc://{url}")
        port = parts.port
    except ValueError:
        raise none from None  # Python's message repeats the address
    behind = parts.path.strip("/") or parts.query or parts.fragment  # a password with a slash in it
    if parts.scheme not in ("grpc", "grpcs") or not parts.hostname or port is None or behind:
        raise none
    return f"{parts.hostname}:{port}", parts.scheme == "grpcs"


def _check_graph(bundle: Bundle, precision: Precision, config: Any, where: str) -> None:  # noqa: ANN401
    """Check that a server's model is the bundle's.

    Raises:
        BundleError: it was written from another graph.
    """
    has = str(config.parameters[GRAPH_PARAMETER].string_value)
    wanted = bundle.manifest.files[bundle.manifest.models[precision]].sha256
    if has != wanted:
        raise BundleError(
            f"{where} runs another {model_name(precision)} than {bundle.path} has (graph "
            f"{has[:12] or 'unknown'}, here {wanted[:12]}): thresholds would not fit.",
            next_step="write the repository again with hvq-edge export --triton, or name the "
            "bundle that it was written from",
        )
