"""NVIDIA's Triton server as a process of its own, which ``make triton`` installs: no GPU needed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
from contextlib import suppress
from pathlib import Path

from google.protobuf import text_format
from helpers.patience import PATIENCE_SECONDS, until
from tritonclient import grpc
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from hvq_edge.bundle.opened import Bundle
from hvq_edge.export.triton_repository import write_triton_repository

PROGRAM = Path(__file__).parents[2] / ".triton/pytriton/tritonserver/bin/tritonserver"
LIBRARIES = Path(sysconfig.get_config_var("LIBDIR"))


def why_not() -> str:
    """Return what the server lacks here; empty: nothing."""
    if not PROGRAM.is_file():
        return "there is no Triton server: make triton installs it (x86-64, glibc 2.35 or newer)"
    library = LIBRARIES / sysconfig.get_config_var("INSTSONAME")
    stub = PROGRAM.parents[1] / "backends/python/triton_python_backend_stub"
    if not library.is_file() or library.name.encode() not in stub.read_bytes():
        return f"Triton's Python backend needs {library}, and to be made for it"
    return ""


def read_config(model: Path) -> model_config_pb2.ModelConfig:
    text = (model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


class TritonServer:
    """A server on loopback, with no model at first.

    Its Python backend is built for the Python that runs the tests.

    Args:
        folder: for its repository and what it prints.
    """

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        self.repository.mkdir(parents=True)
        self._log = folder / "log"
        self._served: object = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._memory = f"hvq_tests_{os.getpid()}_{self._port}_"
        self.address = f"127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(LIBRARIES),
            "PYTHONPATH": sysconfig.get_path("purelib"),
        }
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [
                    *(PROGRAM, f"--model-repository={self.repository}"),
                    f"--backend-directory={PROGRAM.parents[1] / 'backends'}",
                    *("--model-control-mode=explicit", "--load-model=*"),
                    *("--grpc-address=127.0.0.1", f"--grpc-port={self._port}"),
                    *("--allow-http=false", "--allow-metrics=false", "--exit-on-error=false"),
                    "--disable-auto-complete-config",  # it starts each model's Python twice
                    f"--backend-config=python,shm-region-prefix-name={self._memory}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.client = grpc.InferenceServerClient(self.address)
        until(self._ready, f"the server is ready: {self._log}")

    def _ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with suppress(InferenceServerException):
            return bool(self.client.is_server_live())
        return False

    def serve(self, bundle: Bundle, changes: dict[str, str] | None = None) -> Bundle:
        """Serve a bundle's models and no others.

        Args:
            bundle: it is returned.
            changes: of the text of ``model.py``.
        """
        wanted = (bundle.manifest.files, changes)
        if self._served != wanted:
            for folder in self.repository.iterdir():
                self.client.unload_model(folder.name)
                shutil.rmtree(folder)
            for folder in write_triton_repository(bundle, self.repository, backend="python"):
                code = folder / "1" / "model.py"
                text = code.read_text(encoding="utf-8")
                for old, new in (changes or {}).items():
                    assert text.count(old) == 1
                    text = text.replace(old, new)
                code.write_text(text, encoding="utf-8")
                self.load(folder)
            self._served = wanted
        return bundle

    def load(self, folder: Path) -> None:
        self._served = None
        self.client.load_model(folder.name, client_timeout=PATIENCE_SECONDS)

    def batches(self, model: str) -> dict[int, int]:
        """How often the server ran a model with a batch of each size."""
        (found,) = self.client.get_inference_statistics(model).model_stats
        return {one.batch_size: one.compute_infer.count for one in found.batch_stats}

    def signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """As a power cut would end it, and what it started."""
        self.client.close()
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self._process.wait(PATIENCE_SECONDS)
        for left in Path("/dev/shm").glob(f"{self._memory}*"):
            left.unlink()

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
