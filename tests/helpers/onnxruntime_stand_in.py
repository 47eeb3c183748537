"""ONNX Runtime as if it were a build for GPUs: its processor computes under a provider's name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import onnxruntime
import pytest

from hvq_edge.runtime.cpu.onnxruntime_providers import PROVIDERS

RTX = "onnxruntime-tensorrt-rtx"


class Options(onnxruntime.SessionOptions):
    def add_provider_for_devices(self, devices, options):
        self.asked = [(one.ep_name, options) for one in devices]


@dataclass
class GpuBuild:
    """What was opened, and what is to go wrong."""

    opened: list = field(default_factory=list)
    """Of each session for a GPU its providers, with their options."""
    instead: Callable[[bytes], bytes] = bytes
    """The graph that such a session really computes."""
    fails: str = ""
    """Each run of such a session ends with this."""


@pytest.fixture
def gpu_build(monkeypatch) -> GpuBuild:
    """Without a word about it, a session would go on with the processor, and print that."""
    real, build = onnxruntime.InferenceSession, GpuBuild()

    def session(content, sess_options=None, providers=(), enable_fallback=1, **more):
        if list(providers) == ["CPUExecutionProvider"]:
            return real(content, sess_options, providers, **more)
        assert enable_fallback == 0
        made = real(build.instead(content), providers=["CPUExecutionProvider"])
        build.opened.append(providers or sess_options.asked)
        (name, _), *_ = build.opened[-1]
        made.get_providers = lambda: [name, "CPUExecutionProvider"]
        if build.fails:
            made.run = refuse
        return made

    def refuse(*_):
        raise RuntimeError(build.fails)

    names = [one.name for one in PROVIDERS.values() if not one.plugin] + ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    return build


def plug_in(monkeypatch, devices, register=lambda *_: None):
    """Install a plugin that finds so many devices."""
    module = SimpleNamespace(get_library_path=lambda: "/of/the/plugin.so")
    monkeypatch.setitem(sys.modules, PROVIDERS[RTX].plugin, module)
    known = []

    def registered(name, path):
        assert not known, "ONNX Runtime refuses it a second time"
        register(name, path)
        assert path == "/of/the/plugin.so"
        known.extend(SimpleNamespace(ep_name=name) for _ in range(devices))

    # ONNX Runtime has them since 1.22.
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", registered, False)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: list(known), False)
