"""TensorRT as each version offers it, made from the libraries' own lists of names.

The lists in ``data/tensorrt_api`` came from the real libraries with ``dir``. A stand-in has exactly
those names: reading or setting any other raises AttributeError, as the real one does, and calling
one that has no behaviour here fails the test. So code that runs against all of them uses no name
that a version lacks. What the lists do not cover (loggers, profiles, monitors, tensors) is the same
in all of these versions.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import onnx
from helpers.paths import DATA

API = DATA / "tensorrt_api"
FILES = {
    "10.3.0": "api_10.3.0.json",
    "10.16.1.11": "api_10.16.1.11.json",
    "11.4.0.106": "api_11.4.0.106.json",
    "1.7.1.116": "api_rtx_1.7.1.116.json",
}
VERSIONS = tuple(FILES)
RTX = "1.7.1.116"
ENUMERATIONS = (
    *("BuilderFlag", "NetworkDefinitionCreationFlag", "HardwareCompatibilityLevel"),
    *("ProfilingVerbosity", "MemoryPoolType", "DeviceType", "DataType", "ComputeCapability"),
)


class Enumerator:
    def __init__(self, kind: str, name: str, value: int) -> None:
        self.kind, self.name, self.value = kind, name, value

    def __int__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"{self.kind}.{self.name}"


class Enumeration:
    """Its members are attributes, as pybind11's are."""

    def __init__(self, kind: str, names: list[str]) -> None:
        members = {name: Enumerator(kind, name, i) for i, name in enumerate(names)}
        self.__dict__ = {"__members__": members, **members}


class Strict:
    """An object that has the listed names and no other."""

    _names: frozenset[str] = frozenset()
    _kind = ""

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            raise NotImplementedError(f"{self._kind}.{name} has no behaviour in this stand-in")
        raise AttributeError(f"{self._kind} has no {name}")

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in self._names:
            raise AttributeError(f"{self._kind} has no {name}")
        object.__setattr__(self, name, value)


def strict(kind: str, names: list[str], behaviour: dict[str, Any], **start: object) -> type:
    """A class with the listed names; ``behaviour`` that is not listed is left out of it."""
    listed = {
        name: value for name, value in behaviour.items() if name in names or name.startswith("__")
    }
    return type(kind, (Strict,), {"_names": frozenset(names), "_kind": kind, **start, **listed})


class Library(SimpleNamespace):
    """A module: what it was made to build is in ``builds``."""

    __hash__ = object.__hash__  # modules can be keys

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"module tensorrt {self.__version__} has no {name}")


def tensorrt(
    version: str,
    *,
    called: str | None = None,
    dla_cores: int = 0,
    error: str | None = None,
    faults: tuple[str, ...] = (),
    plan: bytes = b"plan",
) -> Library:
    """A stand-in of a version.

    Args:
        version: one of ``VERSIONS``.
        called: what the module says its version is.
        dla_cores: of the device.
        error: builds end with this.
        faults: parsing ends with these.
        plan: what builds give.
    """
    names = json.loads((API / FILES[version]).read_text(encoding="utf-8"))
    module = Library(__version__=called or version, builds=[])
    for kind in ENUMERATIONS:
        if names.get(kind):
            setattr(module, kind, Enumeration(kind, names[kind]))

    class ILogger:
        def __init__(self) -> None:
            self._made = True

    class IProgressMonitor:
        def __init__(self) -> None:
            self._made = True

    module.ILogger, module.IProgressMonitor = ILogger, IProgressMonitor
    error_severity = Enumerator("Severity", "ERROR", 1)
    verbose = Enumerator("Severity", "VERBOSE", 4)

    def tensor(value: onnx.ValueInfoProto) -> SimpleNamespace:
        sizes = value.type.tensor_type.shape.dim
        return SimpleNamespace(
            name=value.name, shape=tuple(-1 if size.dim_param else size.dim_value for size in sizes)
        )

    def parse_from_file(parser: Any, path: str) -> bool:
        assert isinstance(path, str), "the real one takes no Path"
        if not faults:
            graph = onnx.load(path).graph
            parser._network._inputs = [tensor(value) for value in graph.input]
            parser._network._outputs = [tensor(value) for value in graph.output]
        return not faults

    network = strict(
        "INetworkDefinition",
        names["INetworkDefinition"],
        {
            "num_inputs": property(lambda self: len(self._inputs)),
            "get_input": lambda self, i: self._inputs[i],
            "num_layers": property(lambda self: len(self._outputs)),
            "get_layer": lambda self, i: SimpleNamespace(
                num_outputs=1, get_output=[self._outputs[i]].__getitem__
            ),
        },
    )
    parser = strict(
        "OnnxParser",
        names["OnnxParser"],
        {
            "parse_from_file": parse_from_file,
            "num_errors": property(lambda _: len(faults)),
            "get_error": lambda _, i: SimpleNamespace(desc=lambda: faults[i]),
        },
    )

    def make_parser(of: Any, logger: Any) -> Any:
        assert logger._made
        made = parser()
        made._network = of
        return made

    def kinds_only(value: object, kind: str) -> Enumerator:
        assert isinstance(value, Enumerator), f"{value!r} is no {kind}"
        assert value.kind == kind, f"{value!r} is no {kind}"
        return value

    def set_flag(config: Any, flag: object) -> None:
        config._set.add(kinds_only(flag, "BuilderFlag").name)

    def clear_flag(config: Any, flag: object) -> None:
        config._set.discard(kinds_only(flag, "BuilderFlag").name)

    def set_memory_pool_limit(config: Any, pool: object, size: int) -> None:
        config._pools[kinds_only(pool, "MemoryPoolType").name] = size

    def set_timing_cache(config: Any, cache: Any, ignore_mismatch: bool) -> bool:
        assert isinstance(ignore_mismatch, bool)
        config._cache = cache
        return True

    def create_timing_cache(config: Any, content: bytes) -> Any:
        made = strict(
            "ITimingCache", names["ITimingCache"], {"serialize": lambda self: self._content}
        )()
        made._content = content + b"+"
        return made

    def set_compute_capability(config: Any, chip: object, index: int) -> bool:
        assert index < config.num_compute_capabilities
        config._chips[index] = kinds_only(chip, "ComputeCapability").name
        return True

    def add_optimization_profile(config: Any, profile: Any) -> int:
        config._profiles.append(profile.shapes)
        return len(config._profiles) - 1

    def new_config(self: Any) -> Any:
        made = strict(
            "IBuilderConfig",
            names["IBuilderConfig"],
            {
                "set_flag": set_flag,
                "clear_flag": clear_flag,
                "set_memory_pool_limit": set_memory_pool_limit,
                "create_timing_cache": create_timing_cache,
                "set_timing_cache": set_timing_cache,
                "get_timing_cache": lambda config: config._cache,
                "set_compute_capability": set_compute_capability,
                "add_optimization_profile": add_optimization_profile,
            },
        )()
        made._set, made._pools, made._chips, made._profiles = {"TF32"}, {}, {}, []
        made._cache = None
        return made

    def new_profile(self: Any) -> Any:
        made = SimpleNamespace(shapes={})

        def set_shape(name: str, least: tuple, best: tuple, most: tuple) -> None:
            made.shapes[name] = (least, best, most)

        made.set_shape = set_shape
        return made

    def create_network(self: Any, flags: int) -> Any:
        assert flags == 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return network()

    def build(self: Any, of: Any, config: Any) -> bytes | None:
        module.builds.append((of, config))
        monitor = config.progress_monitor
        assert monitor._made
        monitor.phase_start("Building engine", None, 2)
        monitor.phase_start("Timing tactics", "Building engine", 4)
        going_on = all(monitor.step_complete("Timing tactics", step) for step in range(4))
        monitor.phase_finish("Timing tactics")
        monitor.phase_finish("Building engine")
        self._logger.log(verbose, "Name: conv, LayerType: correlation")
        self._logger.log(verbose, "something else")
        if error:
            self._logger.log(error_severity, error)
        return None if error or not going_on else plan

    builder = strict(
        "Builder",
        names["Builder"],
        {
            "create_network": create_network,
            "create_builder_config": new_config,
            "create_optimization_profile": new_profile,
            "build_serialized_network": build,
            "num_DLA_cores": dla_cores,
        },
    )

    def make_builder(logger: Any) -> Any:
        assert logger._made
        made = builder()
        made._logger = logger
        return made

    module.Builder, module.OnnxParser = make_builder, make_parser
    return module
