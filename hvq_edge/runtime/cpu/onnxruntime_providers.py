"""ONNX Runtime's execution providers: their names, what brings each, and which run here."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hvq_edge.common.cache_folder import default_cache
from hvq_edge.common.redaction import redacted
from hvq_edge.errors import MissingCapability, SettingsError

ONNXRUNTIME = "onnxruntime"
CPU = "cpu"


@dataclass(frozen=True)
class Provider:
    """One execution provider for NVIDIA GPUs."""

    name: str
    """ONNX Runtime's name."""
    package: str
    """Its package on PyPI."""
    options: Mapping[str, str] = field(default_factory=dict)
    plugin: str = ""
    """Module that brings it as a library of its own; empty: it is in ONNX Runtime's package."""
    in_auto: bool = True
    """Whether ``auto`` may take it."""

    @property
    def install(self) -> str:
        """What to do where it is missing."""
        if self.plugin:
            return f"run pip install {self.package}"
        return f"run pip uninstall onnxruntime, then pip install {self.package}"


PROVIDERS = {
    "onnxruntime-cuda": Provider(
        "CUDAExecutionProvider",
        "onnxruntime-gpu",
        # TF32 rounds the factors of products to 10 bits, and by them the nearest code is chosen.
        {"use_tf32": "0"},
    ),
    # It builds an engine when it is opened, and again for each larger batch: only who asks for it.
    "onnxruntime-tensorrt": Provider(
        "TensorrtExecutionProvider",
        "onnxruntime-gpu",
        {"trt_engine_cache_enable": "1"},
        in_auto=False,
    ),
    "onnxruntime-tensorrt-rtx": Provider(
        "NvTensorRTRTXExecutionProvider",
        "onnxruntime-ep-nv-tensorrt-rtx",
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
    ),
}
"""By backend; ``onnxruntime`` itself is the provider for processors."""
NAMES = (CPU, *(one.removeprefix(f"{ONNXRUNTIME}-") for one in PROVIDERS))
"""As users give them."""

_SMALLEST = bytes.fromhex(
    "08083a320a0b0a016112016222034e65671201675a0f0a0161120a0a08080112040a020801620f0a0162120a0a0808"
    "0112040a02080142040a001011"
)
"""An ONNX graph of one Neg."""

_DEVICES = ("/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu", "/dev/dxg")
"""A desktop's or server's GPU, a Jetson's before and since JetPack 6, Windows' for Linux in it."""
_DRIVER = Path("/proc/driver/nvidia/version")


def with_provider(backend: str, provider: str | None) -> str:
    """Return the backend that a backend and a provider of ONNX Runtime stand for.

    Args:
        backend: as users name it.
        provider: one of :data:`NAMES`; ``None``: none was named.

    Raises:
        SettingsError: an unknown provider, or one of another backend.
    """
    if provider is None:
        return backend
    if provider not in NAMES:
        raise SettingsError(
            f"provider {redacted(provider)!r} is none of {', '.join(NAMES)}.",
            next_step="use one of these names",
        )
    if backend != ONNXRUNTIME:
        raise SettingsError(
            f"provider {provider} is ONNX Runtime's, and the backend is {backend}.",
            next_step="add --backend onnxruntime, or leave the provider out",
        )
    return backend if provider == CPU else f"{backend}-{provider}"


def open_session(library: Any, backend: str, content: bytes, options: Any) -> Any:  # noqa: ANN401
    """Return a session on a graph in which the provider asked for computes.

    Args:
        library: the module ``onnxruntime``.
        backend: ``onnxruntime``, or one of :data:`PROVIDERS`.
        content: the graph's bytes.
        options: ``SessionOptions``.

    Raises:
        MissingCapability: there is no such provider, or ONNX Runtime fell back from it.
    """
    provider = PROVIDERS.get(backend)
    if provider is None:
        return library.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    devices = find_provider(library, provider)
    settings = dict(provider.options)
    named = {} if provider.plugin else {"providers": [(provider.name, settings)]}
    try:
        if backend == "onnxruntime-tensorrt":  # it knows a graph by its structure, not its weights
            of_this_graph = hashlib.sha256(content).hexdigest()[:16]
            settings["trt_engine_cache_path"] = str(default_cache() / backend / of_this_graph)
        if provider.plugin:
            options.add_provider_for_devices(devices, settings)
        # With a fall-back, a failure while it opens or runs is printed, and the processor goes on.
        session = library.InferenceSession(content, options, enable_fallback=0, **named)
        used = session.get_providers()
        fault = f"fell back to {', '.join(used)}" if provider.name not in used else ""
    except Exception as error:  # noqa: BLE001  # its exceptions share no public base class
        fault = str(error).strip() or type(error).__name__
    if fault:
        raise MissingCapability(
            f"{provider.name} of ONNX Runtime does not run here: {fault}.",
            next_step=f"see whether the driver and the libraries are those that {provider.package} "
            "asks for, or leave the provider out",
        )
    return session


def find_provider(library: Any, provider: Provider) -> list[Any]:  # noqa: ANN401
    """Return the devices of a plugin, which is registered; nothing for a provider without one.

    Raises:
        MissingCapability: the provider is not here.
    """
    if not provider.plugin:
        if provider.name not in library.get_available_providers():
            raise MissingCapability(
                f"ONNX Runtime has no {provider.name} here.", next_step=provider.install
            )
        return []
    try:
        plugin = importlib.import_module(provider.plugin)
    except ImportError as error:
        raise MissingCapability(
            f"{provider.package} cannot be imported: {error}.", next_step=provider.install
        ) from error
    try:
        known = [one for one in library.get_ep_devices() if one.ep_name == provider.name]
        if not known:
            library.register_execution_provider_library(provider.name, plugin.get_library_path())
            known = [one for one in library.get_ep_devices() if one.ep_name == provider.name]
    except Exception as error:  # of an older ONNX Runtime, or its own, which have no public base
        raise MissingCapability(
            f"{provider.package} cannot be registered with ONNX Runtime: {error}.",
            next_step="see whether the NVIDIA driver is installed, and update onnxruntime",
        ) from error
    if not known:
        raise MissingCapability(
            f"{provider.package} finds no GPU that it runs on.",
            next_step="use a GPU of the RTX family, or leave the provider out",
        )
    return known


def may_be_tried() -> tuple[str, ...]:
    """Return the backends that ``auto`` tries here, by what is installed: nothing is imported."""
    if not any(Path(one).exists() for one in _DEVICES):
        return ()
    return tuple(
        backend
        for backend, one in PROVIDERS.items()
        if one.in_auto and (find_spec(one.plugin) if one.plugin else _installed(one.package))
    )


def providers_found() -> dict[str, str]:
    """Try each provider whose package is here: empty where it computes, else the reason."""
    import onnxruntime

    known = onnxruntime.get_available_providers()
    found = {}
    for backend, provider in PROVIDERS.items():
        if find_spec(provider.plugin) if provider.plugin else provider.name in known:
            try:
                open_session(onnxruntime, backend, _SMALLEST, onnxruntime.SessionOptions())
            except MissingCapability as error:
                found[backend] = error.cause.rstrip(".")
            else:
                found[backend] = ""
    return found


def provider_version(backend: str) -> str:
    """Return the versions of what is behind a provider: its plugin and the driver."""
    provider = PROVIDERS[backend]
    parts = [f"{provider.package} {_installed(provider.package) or 'unknown'}"]
    if _DRIVER.is_file():
        parts.append(_DRIVER.read_text(encoding="utf-8").partition("\n")[0].strip())
    return ", ".join(parts)


def _installed(package: str) -> str:
    """Return the version of a package, or of its build for one CUDA; empty where there is none."""
    for name in (package, f"{package}-cu13", f"{package}-cu12"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""
