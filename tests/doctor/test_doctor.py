"""`hvq-edge doctor`: each check on other machines than this, none ending the others."""

from __future__ import annotations

import errno
import json
import os
import re
import struct
from io import StringIO
from pathlib import Path

import cv2
import pytest
from helpers.engine_bench import cache  # noqa: F401  # a fixture
from helpers.graphs import save_bundle
from helpers.known_answers import compute_wrongly, give_answers
from helpers.looks import texture_looks, used_to
from helpers.patience import Stopwatch
from helpers.thresholds import threshold_at
from rich.console import Console

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.cli.app import main
from hvq_edge.cli.doctor import findings_table
from hvq_edge.common.child_process import NoAnswer, run_isolated, tool
from hvq_edge.doctor import board, gpu, software
from hvq_edge.doctor.bundle import bundle as look_at_bundle
from hvq_edge.doctor.bundle import engines, known_answers
from hvq_edge.doctor.cameras import _request, cameras, genicam, query
from hvq_edge.doctor.examination import insist, without_gpu
from hvq_edge.doctor.finding import Check, CheckResult, examine
from hvq_edge.errors import InputError, MissingCapability
from hvq_edge.runtime.tensorrt.engine_file import BuildOptions, EngineRecord, this_platform

SHA = "0" * 64


def by_name(findings) -> dict[str, CheckResult]:
    return {one.name: one for one in findings}


# Isolation.


def test_a_check_that_breaks_is_a_finding_and_the_others_run():
    def breaks():
        raise SystemError("the driver says no\nat length")

    fine = CheckResult("fine", "ok", "it is")
    broken, after = examine([Check("bad", breaks), Check("fine", lambda: [fine])])
    assert (broken.name, broken.state) == ("bad", "missing")
    assert "SystemError the driver says no" in broken.found
    assert "at length" not in broken.found
    assert after == fine


def test_what_is_missing_has_a_remedy():
    with pytest.raises(ValueError, match="remedy"):
        CheckResult("gpu", "missing", "no GPU")


def test_a_library_that_ends_the_program_harms_nobody():
    assert run_isolated("answer = [arguments, 1]", "é") == [["é"], 1]
    for code, said in (
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("import os; os._exit(7)", "exit code 7"),
        ("import no_such_library", "No module named 'no_such_library'"),
    ):
        with pytest.raises(NoAnswer, match=said):
            run_isolated(code)
    with Stopwatch() as stopwatch, pytest.raises(NoAnswer, match=r"no answer within 0\.3 s"):
        run_isolated("import time; time.sleep(60)", timeout=0.3)
    assert stopwatch.seconds < 10, stopwatch
    assert tool("no-such-tool-é") is None
    assert tool("false") is None


def test_a_file_of_the_current_folder_is_no_library(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("json", "cv2", "hvq_edge"):
        (folder / f"{name}.py").write_text("open('ran', 'a').close()\n__version__ = 'mine'\n")
    (tmp_path / "asked_for.py").write_text("name = 'there'\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "import cv2, hvq_edge, asked_for\nanswer = [cv2.__version__, asked_for.name]"
    for safe in ("", "1"):  # Python puts the folder there, or from 3.11 on is told not to
        monkeypatch.setenv("PYTHONSAFEPATH", safe)
        assert run_isolated(code) == [cv2.__version__, "there"]
    assert not (folder / "ran").exists()


# Python and OpenCV.


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 9, 1), "missing"), ((3, 10, 0), "ok"), ((3, 13, 2), "ok"), ((3, 15), "note")],
)
def test_python(version, state):
    assert by_name(software.python(version))["python"].state == state


BUILD = """General configuration for OpenCV 4.8.0 =====
  Video I/O:
    DC1394:                      NO
    FFMPEG:                      YES
      avcodec:                   YES (59.37.100)
    GStreamer:                   {gstreamer}
    v4l/v4l2:                    {v4l}
"""


def test_opencv_of_a_jetson_and_of_pip():
    jetson = by_name(
        software.opencv(BUILD.format(gstreamer="YES (1.20.3)", v4l="YES (linux/videodev2.h)"))
    )
    assert jetson["opencv"].found == "4.8.0"
    assert {one.state for one in jetson.values()} == {"ok"}
    assert jetson["opencv-gstreamer"].found == "YES (1.20.3)"
    bare = by_name(software.opencv(BUILD.format(gstreamer="NO", v4l="NO")))
    assert bare["opencv-v4l2"].state == "missing"
    assert bare["opencv-gstreamer"].state in ("note", "missing")
    assert "system-site-packages" in bare["opencv-gstreamer"].remedy
    assert by_name(software.opencv("no such text"))["opencv-ffmpeg"].state == "missing"


def test_what_reads_pipelines():
    lacking = {"opencv": False, "lacking": "Gst is read through PyGObject", "remedy": "apt install"}
    (none,) = software.gstreamer(lambda: lacking)
    assert none.state in ("note", "missing")
    assert none.found == "CSI cameras and gst: need it: Gst is read through PyGObject"
    assert none.remedy == "apt install"
    (own,) = software.gstreamer(lambda: {**lacking, "opencv": True})
    assert (own.state, own.found) == ("ok", "read through OpenCV; decodes in software")
    (best,) = software.gstreamer(
        lambda: {"opencv": True, "version": "1.22.0", "decoders": ["nvv4l2decoder"]}
    )
    assert best.found == (
        "1.22.0, read through PyGObject; decodes network cameras with nvv4l2decoder"
    )


def test_how_large_a_file_may_unpack_to_is_said(monkeypatch):
    assert by_name(software.images())["images"].found == (
        "files of up to 134 million pixels are read; a bundle's known answers may unpack to 64 MiB"
    )
    monkeypatch.setattr(software, "run_isolated", lambda _: run_isolated("import no_such_library"))
    (found,) = software.images()
    assert (found.state, "no_such_library" in found.found) == ("missing", True)


def test_a_library_that_the_system_lacks_is_named_with_its_package(monkeypatch):
    def lacks(*_):
        raise NoAnswer("ImportError: libGL.so.1: cannot open shared object file: No such file")

    monkeypatch.setattr(software, "run_isolated", lacks)
    (found,) = software.opencv()
    assert (found.state, found.remedy) == ("missing", "as root, run apt-get install libgl1")


# Cameras.


class Kernel:
    """Video4Linux2 as a USB camera's driver answers."""

    def __init__(self, capabilities: int = 0x84A00001, own: int = 0x04200001) -> None:
        self.capabilities, self.own = capabilities, own
        self.formats = {b"MJPG": [(640, 480), (1280, 720)], b"YUYV": "stepwise"}

    def __call__(self, descriptor: int, request: int, into: bytearray) -> None:
        if request == 0x80685600:
            into[16:24] = b"Webcam\0x"
            into[48:58] = b"usb-1.2\0\0\0"
            struct.pack_into("<II", into, 84, self.capabilities, self.own)
        elif request == 0xC0405602:
            index, kind = struct.unpack_from("<II", into)
            if kind != 1 or index >= len(self.formats):
                raise OSError(errno.EINVAL, "")
            into[44:48] = list(self.formats)[index]
        elif request == 0xC02C564A:
            index, fourcc = struct.unpack_from("<I4s", into)
            sizes = self.formats[fourcc]
            if sizes == "stepwise":
                struct.pack_into("<I6I", into, 8, 3, 160, 1920, 8, 120, 1080, 8)
            elif index < len(sizes):
                struct.pack_into("<III", into, 8, 1, *sizes[index])
            else:
                raise OSError(errno.EINVAL, "")
        else:
            raise AssertionError(hex(request))


def test_a_camera_and_its_modes():
    """The request numbers are those of linux/videodev2.h."""
    camera = query(Path(os.devnull), Kernel())
    assert (camera.name, camera.bus) == ("Webcam", "usb-1.2")
    assert camera.modes == ("MJPG 640x480 1280x720", "YUYV 160x120 to 1920x1080")
    assert _request("V", 0, 104, 2) == 0x80685600
    # The second device of a USB camera carries metadata only.
    assert query(Path(os.devnull), Kernel(own=0x04A00000)).modes == ()
    with pytest.raises(OSError, match=r"ioctl|device"):
        query(Path(os.devnull))


def test_cameras_of_a_machine(tmp_path):
    for number in (0, 1, 2, 10):
        (tmp_path / f"video{number}").touch()
    (tmp_path / "video-notes").touch()
    link = tmp_path / "v4l" / "by-id" / "usb-Webcam_7-video-index0"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../video10")

    def look(path: Path) -> dict:
        if path.name == "video1":
            return {"name": "Webcam", "bus": "usb", "modes": ()}
        if path.name == "video2":
            raise NoAnswer("no answer within 5 s")
        return {"name": "Webcam", "bus": "usb", "modes": ("MJPG 640x480",)}

    found = cameras(tmp_path, look)
    assert [one.name for one in found] == ["camera-0", "camera-2", "camera-10"]
    assert found[0].found == f"{tmp_path / 'video0'}: Webcam (usb); MJPG 640x480"
    assert found[2].found.startswith(f"{tmp_path / 'video10'} or {link}: Webcam")
    assert (found[1].state, "dmesg" in found[1].remedy) == ("missing", True)
    (none,) = cameras(tmp_path / "nowhere", look)
    assert (none.name, none.state) == ("camera", "note")


def test_a_file_that_is_no_camera_is_asked_in_a_child(tmp_path):
    (tmp_path / "video3").touch()
    (found,) = cameras(tmp_path)
    assert (found.name, found.state) == ("camera-3", "missing")
    assert "ioctl" in found.found


# Boards.

RELEASE = "# R{major} (release), REVISION: {minor}, GCID: 38968081, BOARD: generic, EABI: aarch64\n"


@pytest.mark.parametrize(
    ("major", "minor", "state", "said"),
    [
        (36, "4.3", "ok", "Jetson Linux 36.4.3 (JetPack 6)"),
        (38, "2.0", "ok", "JetPack 7"),
        (35, "4.1", "missing", "JetPack 5"),
        (32, "7", "missing", "Jetson Linux 32.7"),
        (44, "1", "note", "newer than"),
    ],
)
def test_jetpack(tmp_path, major, minor, state, said):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(RELEASE.format(major=major, minor=minor))
    found = by_name(board.processor(tmp_path, "Orin Nano"))
    assert found["processor"].found == "Orin Nano"
    assert found["jetpack"].state == state
    assert said in found["jetpack"].found


def test_the_power_mode_of_a_jetson_only(tmp_path):
    assert board.power(tmp_path) == []
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").touch()

    def answers(text: str | None):
        return board.power(tmp_path, lambda *_: text)[0]

    assert (answers("NV Power Mode: MAXN_SUPER\n2\n").state) == "ok"
    slow = answers("NV Power Mode: 7W\n3\n")
    assert (slow.state, slow.found) == ("note", "7W")
    assert "nvpmodel -m 0" in slow.remedy
    assert answers(None).state == "note"


def test_memory_and_disk(tmp_path):
    (tmp_path / "proc").mkdir()
    lines = "MemTotal: 7802340 kB\nMemAvailable: {} kB\nSwapTotal: 0 kB\n"
    (tmp_path / "proc/meminfo").write_text(lines.format(5_000_000))
    assert board.memory(tmp_path)[0].state == "ok"
    (tmp_path / "proc/meminfo").write_text(lines.format(500_000))
    low = board.memory(tmp_path)[0]
    assert (low.state, low.found) == ("missing", "7.4 GiB, 0.5 GiB available, swap 0.0 GiB")
    assert "swapon" in low.remedy
    assert board.memory(tmp_path / "nowhere")[0].state == "note"
    assert "GiB free" in board.disk(tmp_path)[0].found


# GPU.


def test_a_gpu_and_none():
    device = {"name": "Orin", "compute_capability": "8.7", "driver": "12.6", "total": 8 * 2**30}
    (found,) = gpu.gpu(lambda _: {**device, "free": 2**30, "shared": True})
    assert found.state == "ok"
    assert "Orin, compute capability 8.7, 8.0 GiB shared" in found.found
    (none,) = gpu.gpu(lambda _: ["no driver.", "install it"])
    assert (none.state, none.remedy) == ("note", "only for TensorRT: install it")


def test_which_library_copies_to_the_gpu():
    def answers(**numbers):
        def asked(code):
            for module, number in numbers.items():
                if f"import {module}" in code:
                    return number
            raise NoAnswer("libcuda.so.1 is missing")

        return gpu.gpu_memory(asked)[0]

    assert answers(pycuda="2026.1", cuda="13.0").found == "PyCUDA 2026.1 is used"
    assert answers(cuda="13.0").found == "cuda-python 13.0 is used"
    neither = answers()
    assert neither.state == "note"
    assert neither.found.count("libcuda.so.1 is missing") == 2


def test_a_machine_without_a_gpu_reads_one_line_about_it():
    python = CheckResult("python", "ok", "3.11")
    lacking = [
        CheckResult("gpu", "note", "this machine has no NVIDIA driver: libcuda.so.1", "install it"),
        CheckResult("tensorrt", "note", "not installed", "only for its engines: pip install ..."),
        CheckResult("tensorrt-rtx", "ok", "1.7"),
        CheckResult("gpu-memory", "note", "PyCUDA is not installed", "pip install pycuda"),
    ]
    shown = without_gpu([python, *lacking])
    assert [one.name for one in shown] == ["python", "gpu", "tensorrt-rtx"]
    assert shown[1].found == (
        "no NVIDIA driver (nor tensorrt, gpu-memory); nothing is needed for the CPU"
    )
    console = Console(width=100, file=StringIO())
    console.print(findings_table(shown))
    assert len(console.file.getvalue().splitlines()) == 3, "a line each"
    with_one = [CheckResult("gpu", "ok", "Orin"), *lacking[1:]]
    assert without_gpu(with_one) == with_one
    failing = [CheckResult("gpu", "note", "NVIDIA's driver fails: 999", "restart"), *lacking[1:]]
    assert without_gpu(failing) == failing, "a GPU may be there"
    broken = [lacking[0], CheckResult("tensorrt", "missing", "it crashed", "install it again")]
    assert without_gpu(broken)[1] == broken[1], "what is broken is said"


def test_a_package_that_is_not_installed_is_said_in_words():
    def asked(_):
        raise NoAnswer("ModuleNotFoundError: No module named 'pycuda'")

    (found,) = gpu.gpu_memory(asked)
    assert found.found == "PyCUDA is not installed; cuda-python is not installed"


def test_a_broken_tensorrt_is_missing(monkeypatch):
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda _: object())

    def crashes(code):
        raise NoAnswer("it crashed with SIGSEGV")

    found = by_name(gpu.tensorrt(crashes))
    assert set(found) == {"tensorrt", "tensorrt-rtx"}
    assert found["tensorrt"].state == "missing"
    assert "python3-libnvinfer" in found["tensorrt"].remedy
    assert by_name(gpu.tensorrt(lambda _: "10.3.0"))["tensorrt"].found == "10.3.0"


# A bundle.


@pytest.fixture
def bundle(tmp_path):
    return save_bundle(tmp_path / "bundle", "auto", ("fp32", "int8"))


def test_a_bundle(bundle):
    found = by_name(look_at_bundle(bundle.path, "1.0"))
    assert found["bundle"].state == "ok"
    assert "written by hvq-edge 0, here is 1.0" in found["bundle-version"].found
    assert found["thresholds"].state == "missing"
    assert "bolt at fp32" in found["thresholds"].found
    assert f"hvq-edge calibrate {bundle.path}" in found["thresholds"].remedy
    limit = threshold_at(1, images=1, rule="")
    every = dict.fromkeys(bundle.manifest.categories, limit)
    thresholds = {"fp32": every, "int8": every}
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"thresholds": thresholds}))
    found = by_name(look_at_bundle(bundle.path, "0"))
    assert (found["thresholds"].state, "bundle-version" in found) == ("ok", False)
    assert found["training-images"].state == "note"
    assert (
        f"not known for {', '.join(bundle.manifest.categories)}" in found["training-images"].found
    )
    (bundle.path / "model.int8.onnx").write_bytes(b"changed")
    (broken,) = look_at_bundle(bundle.path, "0")
    assert (broken.name, broken.state) == ("bundle", "missing")
    assert "is not the file that was exported" in broken.found


def test_a_bundle_of_one_category(tmp_path):
    found = by_name(look_at_bundle(save_bundle(tmp_path / "b").path, "1.0"))
    assert re.search(r"whole \(1 file, .*; 1 category$", found["bundle"].found)


def test_a_bundle_that_knows_its_training_images(tmp_path):
    bundle = used_to(save_bundle(tmp_path / "bundle"), texture_looks(5))
    found = by_name(look_at_bundle(bundle.path, "1.0"))["training-images"]
    assert found.state == "ok"
    assert re.search(r"brightness: bolt 1\d\d \.\. 1\d\d$", found.found)


def test_engines_that_run_here_and_why_others_do_not(bundle):
    assert engines(bundle.path)[0].found == "none in the bundle"
    folder = bundle.path / "engines"
    folder.mkdir()
    digest = bundle.manifest.files["model.fp32.onnx"].sha256
    plan = folder / "tensorrt-10.3.0-sm87-fp32.plan"
    plan.write_bytes(b"plan")
    record = EngineRecord(
        backend="tensorrt",
        backend_version="10.3.0",
        precision="fp32",
        onnx_sha256=digest,
        compute_capabilities=("8.7",),
        platform=this_platform(),
        gpu_name="Orin",
        driver="12.6",
        options=BuildOptions(),
        workspace=0,
        build_seconds=1,
        bytes=4,
        plan_sha256="f" * 64,
        hvq_edge_version="0",
        created="",
    )
    from hvq_edge.common.atomic import sha256_of

    def write(**changes):
        kept = record.model_copy(update={"plan_sha256": sha256_of(plan), **changes})
        plan.with_suffix(".json").write_text(kept.model_dump_json())

    here = {"name": "Orin", "compute_capability": "8.7", "driver": "12.6"}

    def look(version="10.3.0", **changes):
        (found,) = engines(bundle.path, lambda: here | changes, lambda _: version)
        return found

    write()
    assert (look().name, look().state) == (f"engine-{plan.stem}", "ok")
    other = look(compute_capability="8.6")
    assert other.state == "missing"
    assert "8.6" in other.found
    assert "hvq-edge build" in other.remedy
    assert look("10.16.0").state == "missing"
    write(onnx_sha256=SHA)
    assert look().state == "missing"

    def none():
        raise NoAnswer("this machine has no NVIDIA GPU that answers")

    (found,) = engines(bundle.path, none, lambda _: "10.3.0")
    assert "no NVIDIA GPU" in found.found


def test_whether_engines_compute_rightly_here(tmp_path, cache):
    bundle = save_bundle(tmp_path / "b", "auto", ("fp32", "int8"))
    (unknown,) = known_answers(bundle.path)
    assert (unknown.name, unknown.state) == ("computes", "note")
    compute_wrongly(give_answers(bundle), "int8")
    for _ in range(2):
        found = by_name(known_answers(bundle.path))
        for backend in ("onnxruntime", "openvino"):
            right, wrong = (found[f"computes-{name}-{backend}"] for name in ("fp32", "int8"))
            assert right.state == "ok"
            assert right.found.startswith("right on 3 known images: 100.0% of codes equal")
            assert wrong.state == "missing"
            assert wrong.found.startswith("computes wrongly on 3 known images: the map is off")
    assert known_answers(tmp_path / "nowhere") == [], "said twice"


# The command.


def test_the_table_comes_out_whole_and_names_what_is_required(bundle, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--bundle", str(bundle.path), "--json"])
    assert stop.value.code in (0, None)
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert {"python", "memory", "disk", "opencv", "onnxruntime", "gpu", "tensorrt"} <= set(found)
    assert all(one["remedy"] for one in found.values() if one["state"] == "missing")
    assert any(name.startswith("genicam") for name in found)
    assert "gstreamer" in found
    assert "providers: cpu" in found["onnxruntime"]["found"]
    assert found["thresholds"]["state"] == "missing"


def test_industrial_cameras():
    device = {"id": "Maker-7", "maker": "Maker", "model": "M1", "serial": "7"}
    device |= {"protocol": "GigEVision", "address": "10.0.0.9"}
    (found,) = genicam(lambda: {"devices": [device]})
    assert (found.name, found.state) == ("genicam-7", "ok")
    assert found.found == "Maker M1, GigEVision at 10.0.0.9: genicam://Maker-7"
    (none,) = genicam(lambda: {"devices": []})
    assert (none.state, bool(none.remedy)) == ("note", True)

    def silent():
        raise NoAnswer("no answer within 20 s")

    assert genicam(silent)[0].found == "no answer within 20 s"


def test_require():
    findings = [
        CheckResult("camera-0", "missing", "dead", "unplug it"),
        CheckResult("camera-1", "ok", "alive"),
        CheckResult("opencv", "ok", "4.8"),
        CheckResult("opencv-gstreamer", "note", "NO", "take the system's"),
    ]
    insist(["camera", "opencv"], findings)
    with pytest.raises(MissingCapability, match="opencv-gstreamer") as caught:
        insist(["opencv-gstreamer", "camera-0"], findings)
    assert "camera-0 (dead)" in caught.value.cause
    assert caught.value.next_step == "take the system's"
    with pytest.raises(InputError, match="nothing called 'lidar'"):
        insist(["lidar"], findings)


def test_a_bundle_that_is_not_there(tmp_path):
    (found,) = look_at_bundle(tmp_path / "nowhere", "0")
    assert found.state == "missing"
    assert engines(tmp_path / "nowhere") == [], "said twice"
