"""``hvq-edge serve``: it starts, judges, and ends when it is asked to."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys

import cv2
import httpx
import pytest
from helpers.commands import exit_code
from helpers.paths import ROOT
from helpers.patience import PATIENCE_SECONDS
from helpers.running_line import parts, save_line_bundle

from hvq_edge.cli.serve import DEFAULT_PORT


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_line_bundle(tmp_path_factory.mktemp("serve") / "bundle").path


def curl_commands_of_the_docs(url: str, token: str) -> list[list[str]]:
    page = (ROOT / "docs/how-to/serve.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("curl ")]
    given = {"$TOKEN": token, f"http://127.0.0.1:{DEFAULT_PORT}/": url}
    for old, new in given.items():
        assert all(old in line for line in lines)
        lines = [line.replace(old, new) for line in lines]
    return [[*shlex.split(line), "--fail", "--noproxy", "*"] for line in lines]


def test_it_judges_until_a_signal(bundle, tmp_path):
    command = [sys.executable, "-m", "hvq_edge", "serve", "--bundle", str(bundle), "--port", "0"]
    command += ["--backend", "onnxruntime"]
    command += ["--json"]
    said = tmp_path / "said"
    with said.open("w") as output:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output, text=True)
    try:
        ready = json.loads(process.stdout.readline())
        assert (ready["backend"], ready["precision"]) == ("onnxruntime", "fp32")
        url, token = ready["url"], ready["token"]
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_SECONDS) as asking:
            for number_of_part, verdict in ((0, "pass"), (3, "reject")):
                image = parts(4)[number_of_part]
                content = cv2.imencode(".png", image)[1].tobytes()
                answer = asking.post(
                    "/predict", content=content, headers={"content-type": "image/png"}
                )
                assert answer.json()["verdict"] == verdict
                (tmp_path / "part.png").write_bytes(content)
            asked = curl_commands_of_the_docs(url, token)
            assert len(asked) == 2
            if shutil.which("curl"):
                for one in asked:
                    subprocess.run(one, cwd=tmp_path, capture_output=True, check=True)
                assert cv2.imread(str(tmp_path / "overlay.png")) is not None
            assert asking.get("/healthz").status_code == 200
            assert asking.post("/trigger", json={}).status_code == 409
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 130, said.read_text()
        assert "Traceback" not in said.read_text()
    finally:
        process.kill()
        process.wait()


def test_what_cannot_be_served_is_said_before_a_model_is_loaded(bundle, tmp_path, capsys):
    assert exit_code("serve", "--bundle", str(bundle), "--host", "0.0.0.0") == 2
    assert "--token-file" in capsys.readouterr().err
    assert exit_code("serve", "--bundle", str(tmp_path / "none"), "--port", "0") == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
