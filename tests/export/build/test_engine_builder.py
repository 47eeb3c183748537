"""The builder uses no name that a version of TensorRT lacks, and says what it cannot do."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from helpers.graphs import GRID, SIDE, save_graph
from helpers.patience import PATIENCE_SECONDS
from helpers.tensorrt_stand_in import API, FILES, RTX, VERSIONS, Strict, strict, tensorrt

from hvq_edge.errors import BundleError, HvqEdgeError, MissingCapability, SettingsError
from hvq_edge.export.build.engine import build_engine, largest_activation
from hvq_edge.export.build.memory import MIB, FreeMemory
from hvq_edge.export.build.monitor import interruptible
from hvq_edge.export.build.versions import version_of
from hvq_edge.runtime.tensorrt.engine_file import BuildOptions

PLENTY = FreeMemory(host=64 << 30, swap=0, gpu=8 << 30)
ENTERPRISE = [version for version in VERSIONS if version != RTX]


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return save_graph(tmp_path_factory.mktemp("graph") / "Modell ä.onnx", "input")


def backend_of(version):
    return "tensorrt-rtx" if version == RTX else "tensorrt"


def build(module, graph, *, precision="fp16", free=PLENTY, backend=None, more=None, **options):
    backend = backend or backend_of(module.__version__)
    found = version_of(module, backend)
    options = BuildOptions(**options)
    return build_engine(module, found, graph, precision, options, free, **(more or {}))


def config_of(module):
    ((_, config),) = module.builds
    return config


# Every version, every path.


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plain_build(version, graph):
    module = tensorrt(version)
    heard = []
    built = build(module, graph, more={"on_progress": lambda *said: heard.append(said)})
    assert built.engine == b"plan"
    config = config_of(module)
    assert config._set == set(), "TF32 would round the factors of distances to 10 bits"
    assert config._pools == {"WORKSPACE": built.workspace}
    frame = (SIDE, SIDE, 3)
    assert config._profiles == [
        {"frames": ((1, *frame), (1, *frame), (8, *frame)), "category": ((1,), (1,), (8,))}
    ]
    assert heard[-1][:3] == ("engine fp16", 100, 100)
    assert [done for _, done, *_ in heard] == sorted(done for _, done, *_ in heard)
    assert "Timing tactics" in [said[3] for said in heard[:-1]]


@pytest.mark.parametrize("version", VERSIONS)
def test_tf32_and_the_level_and_the_layers(version, graph):
    module = tensorrt(version)
    built = build(module, graph, tf32=True, optimisation_level=5, more={"log_layers": True})
    config = config_of(module)
    assert config._set == {"TF32"}
    assert config.builder_optimization_level == 5
    assert config.profiling_verbosity.name == "DETAILED"
    assert built.layers == "Name: conv, LayerType: correlation"


@pytest.mark.parametrize("version", ENTERPRISE)
def test_the_timing_cache_goes_on_from_the_last(version, graph):
    built = build(tensorrt(version), graph, more={"timing_cache": b"before"})
    assert built.timing_cache == b"before+"


def test_rtx_has_no_timing_cache(graph):
    assert build(tensorrt(RTX), graph, more={"timing_cache": b"before"}).timing_cache == b""


@pytest.mark.parametrize("version", ENTERPRISE)
def test_version_compatible(version, graph):
    module = tensorrt(version)
    build(module, graph, version_compatible=True)
    assert config_of(module)._set == {"VERSION_COMPATIBLE"}


@pytest.mark.parametrize(
    ("version", "level", "name"),
    [
        ("10.3.0", "ampere+", "AMPERE_PLUS"),
        ("10.16.1.11", "ampere+", "AMPERE_PLUS"),
        ("10.16.1.11", "same-compute-capability", "SAME_COMPUTE_CAPABILITY"),
        ("11.4.0.106", "ampere+", "AMPERE_PLUS"),
        ("11.4.0.106", "same-compute-capability", "SAME_COMPUTE_CAPABILITY"),
    ],
)
def test_hardware_compatibility(version, level, name, graph):
    module = tensorrt(version)
    build(module, graph, hardware=level)
    assert config_of(module).hardware_compatibility_level.name == name


def test_the_batch(graph):
    module = tensorrt("10.3.0")
    build(module, graph, opt_batch=4, max_batch=16)
    ((_, best, most),) = [config_of(module)._profiles[0]["category"]]
    assert (best, most) == ((4,), (16,))


@pytest.mark.parametrize(("version", "called"), [("10.3.0", "10.3.0"), ("11.4.0.106", "11.4.1.35")])
@pytest.mark.parametrize("precision", ["fp16", "int8-fp16"])
def test_a_dla_where_there_is_one(version, called, precision, graph):
    """11.4.1 brought DLA back; its names are those of 11.4.0."""
    module = tensorrt(version, called=called, dla_cores=2)
    build(module, graph, precision=precision, dla_core=1, opt_batch=2, max_batch=2)
    config = config_of(module)
    assert config.default_device_type.name == "DLA"
    assert config.DLA_core == 1
    assert config._set == {"GPU_FALLBACK"}
    assert config._profiles[0]["category"] == ((2,), (2,), (2,)), "a DLA has no open batch"


def test_rtx_builds_for_named_gpus(graph):
    module = tensorrt(RTX)
    build(module, graph, more={"capabilities": ("8.6", "8.9", "12.0")})
    config = config_of(module)
    assert config.num_compute_capabilities == 3
    assert config._chips == {0: "SM86", 1: "SM89", 2: "SM120"}


# What a version or a device does not have.


@pytest.mark.parametrize(
    ("version", "options", "more", "said"),
    [
        (RTX, {"version_compatible": True}, {}, "no version-compatible engines"),
        (RTX, {"hardware": "ampere+"}, {}, r"hardware compatibility ampere\+, only none"),
        (RTX, {"dla_core": 0, "max_batch": 2, "opt_batch": 2}, {}, "runs on GPUs only"),
        (RTX, {"max_batch": 1}, {}, "a largest batch of at least 2"),
        (RTX, {}, {"capabilities": ("9.0",)}, "8.9, 12.0, 12.1, not for 9.0"),
        ("10.3.0", {"hardware": "same-compute-capability"}, {}, "only none, ampere"),
        ("10.3.0", {}, {"capabilities": ("8.7",)}, "for the GPU that is there"),
        ("10.3.0", {"opt_batch": 9}, {}, "9, is above the largest, 8"),
        ("10.3.0", {"dla_core": 0}, {}, "one batch size"),
        ("10.16.1.11", {"dla_core": 0, "opt_batch": 8}, {}, "10.7 was the last"),
        ("11.4.0.106", {"dla_core": 0, "opt_batch": 8}, {}, "until 11.4.1"),
    ],
)
def test_an_option_that_a_version_lacks(version, options, more, said, graph):
    module = tensorrt(version, dla_cores=2)
    with pytest.raises(SettingsError, match=said):
        build(module, graph, more=more, **options)
    assert module.builds == []


def test_all_that_is_wrong_is_said_at_once(graph):
    with pytest.raises(SettingsError) as caught:
        build(tensorrt(RTX), graph, version_compatible=True, max_batch=1)
    assert "version-compatible" in caught.value.cause
    assert "at least 2" in caught.value.cause


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_dla_computes_no_float32(precision, graph):
    module = tensorrt("10.3.0", dla_cores=2)
    with pytest.raises(SettingsError, match="float16 and int8"):
        build(module, graph, precision=precision, dla_core=0, opt_batch=1, max_batch=1)


def test_a_device_without_that_dla(graph):
    with pytest.raises(MissingCapability, match="has 0 DLA cores, not core 0"):
        build(tensorrt("10.3.0"), graph, dla_core=0, max_batch=1)


@pytest.mark.parametrize("version", ["8.5.2.2", "8.6.2", "9.3.0", "10.0.1", "10.2.0.19"])
def test_versions_that_are_too_old(version):
    """JetPack 5 has 8.5.2."""
    with pytest.raises(MissingCapability, match=f"TensorRT {version} is too old") as caught:
        version_of(tensorrt("10.3.0", called=version), "tensorrt")
    assert "JetPack 6.1" in caught.value.next_step


def test_orin_and_the_version_that_left_it_out():
    assert version_of(tensorrt("10.16.1.11", called="10.13.3"), "tensorrt").no_code_for == ("8.7",)
    assert version_of(tensorrt("10.16.1.11"), "tensorrt").no_code_for == ()


# Failures.


def test_a_graph_that_the_parser_refuses(graph):
    faults = ("no importer for Foo", "no importer for Bar")
    with pytest.raises(BundleError, match="no importer for Foo; no importer for Bar"):
        build(tensorrt("10.3.0", faults=faults), graph)


@pytest.mark.parametrize(
    ("error", "kind", "remedy"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 9 bytes.)", MissingCapability, "workspace"),
        ("(cudaError 35: CUDA driver version is insufficient)", MissingCapability, "driver"),
        ("Unable to load library: libnvinfer_lean.so.10", MissingCapability, "that library"),
        ("Error Code 10: no implementation for node", HvqEdgeError, "another precision"),
    ],
)
def test_a_build_that_fails_says_why(error, kind, remedy, graph):
    with pytest.raises(kind) as caught:
        build(tensorrt("10.16.1.11", error=error), graph)
    assert type(caught.value) is kind
    assert error in caught.value.cause
    assert remedy in caught.value.next_step


def test_what_is_harmless_is_not_the_reason(graph):
    with pytest.raises(HvqEdgeError, match="it gave no reason"):
        build(tensorrt(RTX, error="Thread context has not been set! Using global"), graph)


def test_one_build_does_not_hear_another(graph):
    """The library keeps its first logger for good."""
    failing = tensorrt("10.3.0", error="the first build's")
    for _ in range(2):
        with pytest.raises(HvqEdgeError) as caught:
            build(failing, graph)
        assert caught.value.cause.count("the first build's") == 1


def test_ctrl_c_ends_the_build_at_its_next_step(graph):
    """The main thread hears of it while the library works in another."""
    module = tensorrt("10.3.0", plan=b"never seen")
    whole, said = [], []
    build(module, graph, more={"on_progress": lambda *heard: whole.append(heard)})

    def press(*heard):
        said.append(heard)
        if len(said) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)  # for the main thread to hear of it

    with pytest.raises(KeyboardInterrupt):
        build(module, graph, more={"on_progress": press})
    assert 100 not in [done for _, done, *_ in said]
    assert len(said) < len(whole) - 1, "steps were left out, and not the last word alone"


def test_ctrl_c_pressed_again_and_again_never_leaves_the_build_alone():
    ended = []

    def work(cancelled):
        for _ in range(200):  # some while the main thread is still busy with the one before
            os.kill(os.getpid(), signal.SIGINT)
        assert cancelled.wait(PATIENCE_SECONDS)
        ended.append(True)

    before = signal.getsignal(signal.SIGINT)
    for round_ in range(1, 21):
        with pytest.raises(KeyboardInterrupt):
            interruptible(work)
        assert len(ended) == round_
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_ctrl_c_stays_ignored():
    """As for a build that a script started in the background."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert interruptible(lambda _: os.kill(os.getpid(), signal.SIGINT)) is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)


def test_an_exception_of_the_caller_does_not_pass_through_the_library(graph):
    def fail(stage, done, total, note=""):
        raise ZeroDivisionError

    module = tensorrt("11.4.0.106")
    with pytest.raises(ZeroDivisionError):
        build(module, graph, more={"on_progress": fail})
    assert len(module.builds) == 1


def test_too_little_memory_stops_it_before_the_build(graph):
    module = tensorrt("10.3.0")
    with pytest.raises(MissingCapability, match="MiB of memory"):
        build(module, graph, free=FreeMemory(host=300 * MIB, swap=0, gpu=8 << 30))
    assert module.builds == []


def test_a_workspace_of_ones_own(graph):
    module = tensorrt("10.3.0")
    build(module, graph, free=FreeMemory(0, 0, 0), more={"workspace": 77 * MIB})
    assert config_of(module)._pools == {"WORKSPACE": 77 * MIB}


def test_the_largest_activation(graph):
    module = tensorrt("10.3.0")
    build(module, graph)
    ((network, _),) = module.builds
    assert largest_activation(network, 8) == 4 * 8 * 2 * GRID**2  # codes


# The stand-ins themselves.


def test_a_stand_in_knows_no_other_names():
    module = tensorrt("11.4.0.106")
    for absent in ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"):
        with pytest.raises(AttributeError):
            getattr(module.BuilderFlag, absent)
    with pytest.raises(AttributeError, match="has no ComputeCapability"):
        _ = module.ComputeCapability
    thing = strict("Thing", ["known"], {})()
    with pytest.raises(AttributeError, match="Thing has no other"):
        thing.other = 1
    with pytest.raises(AttributeError, match="Thing has no other"):
        _ = thing.other
    with pytest.raises(NotImplementedError):
        thing.known()
    thing.known = 1
    assert isinstance(thing, Strict)
    assert thing.known == 1


def test_the_rtx_list_is_that_of_the_installed_library():
    library = pytest.importorskip("tensorrt_rtx", reason="needs the rtx extra")
    if library.__version__ != RTX:
        pytest.skip(f"the list is of {RTX}, installed is {library.__version__}")
    listed = json.loads((API / FILES[RTX]).read_text(encoding="utf-8"))
    for kind, names in listed.items():
        if names and kind != "v":
            assert all(hasattr(getattr(library, kind), name) for name in names), kind
    flags = [name for name in dir(library.IBuilderConfig) if not name.startswith("_")]
    assert sorted(flags) == listed["IBuilderConfig"]
