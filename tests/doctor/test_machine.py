"""The doctor's look at the machine: cameras, the board and its memory, the GPU."""

from __future__ import annotations

import errno
import os
import struct
from io import StringIO
from pathlib import Path

import pytest
from helpers.findings import by_name
from rich.console import Console

from hvq_edge.cli.doctor import findings_table
from hvq_edge.common.child_process import NoAnswer
from hvq_edge.doctor import board, gpu
from hvq_edge.doctor.cameras import _request, cameras, genicam, query
from hvq_edge.doctor.examination import without_gpu
from hvq_edge.doctor.finding import CheckResult

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
