"""What images over HTTP cost a line: frames lost and memory, while programs post without a pause.

    python -m benchmarks.speed.requests_beside_a_line runs/latest/bundle parts.avi part.png

The line is `hvq-edge stream --play --page`, the senders ask for overlays; with ``--explain`` they
look at the newest frame and ask why it scores what it scores, as people do who click without a
pause. Seconds with and without them take turns, so that a busy machine meets both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.markdown_table import markdown_table

COUNTED = ("hvq_frames_total", "hvq_frames_dropped_total", "hvq_predict_seconds_count")
TURN_SECONDS = 5.0
_OPEN = build_opener(ProxyHandler({})).open


def counts(page: str) -> list[float]:
    """Return the line's counts, over all cameras."""
    with _OPEN(f"{page}metrics", timeout=60) as answer:
        families = [*text_string_to_metric_families(answer.read().decode())]
    samples = [sample for family in families for sample in family.samples]
    return [sum(one.value for one in samples if one.name == name) for name in COUNTED]


def post(page: str, token: str, content: bytes, until: float) -> None:
    """Ask for overlays without a pause, but where the page asks for one."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}
    while time.monotonic() < until:
        request = Request(f"{page}predict?as=overlay", content, headers)
        try:
            with _OPEN(request, timeout=60) as answer:
                answer.read()
        except HTTPError as error:
            if error.code != 503:
                raise
            time.sleep(float(error.headers["Retry-After"]))


def click(page: str, token: str, made: list[float], until: float) -> None:
    """Look at the newest frame and have it explained, without a pause; note how long each took."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    while time.monotonic() < until:
        with _OPEN(f"{page}api/cameras/0/image.jpg", timeout=60) as answer:
            answer.read()
            shown = json.loads(answer.headers["X-Decision"])
        asked = json.dumps({"sequence": shown["sequence"]}).encode()
        began = time.monotonic()
        try:
            with _OPEN(Request(f"{page}api/explain", asked, headers), timeout=60) as answer:
                answer.read()
            made.append(time.monotonic() - began)
        except HTTPError as error:
            if error.code not in (404, 422, 503):  # 404: it had made room; 422: it was lost
                raise
            time.sleep(float(error.headers.get("Retry-After", 0.1)))


def look(page: str, until: float) -> None:
    """Look at the newest frame as often as a browser, and ask for nothing else."""
    while time.monotonic() < until:
        with _OPEN(f"{page}api/cameras/0/image.jpg", timeout=60) as answer:
            answer.read()
        time.sleep(0.1)


def resident(process: int) -> int:
    """Return a process's memory in MiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) >> 10


def worked(process: int) -> float:
    """Return the processor seconds that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("video", type=Path, help="played at its own rate, over and over")
    parser.add_argument("image", type=Path, help="that is posted")
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--explain", action="store_true", help="explanations, not overlays")
    arguments = parser.parse_args()
    content = arguments.image.read_bytes()
    command = [sys.executable, "-m", "hvq_edge", "stream", "--bundle", str(arguments.bundle)]
    command += ["--camera", str(arguments.video), "--play", "--no-display", "--page-port", "0"]
    with tempfile.TemporaryFile("w+") as said:
        line = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        try:
            address = None
            while address is None:
                if line.poll() is not None:
                    raise SystemExit("the line ended")
                time.sleep(0.2)
                said.seek(0)
                address = re.search(r"Live page: (\S+)#token=(\S+)", said.read())
            page, token = address.groups()
            time.sleep(TURN_SECONDS)
            memory = [resident(line.pid)]
            sums = {senders: [0.0] * (len(COUNTED) + 1) for senders in (0, arguments.senders)}
            made: list[float] = []
            for _ in range(arguments.rounds):
                for senders, total in sums.items():
                    before = [*counts(page), worked(line.pid)]
                    end = time.monotonic() + TURN_SECONDS
                    asking = partial(post, page, token, content, end)
                    if arguments.explain:
                        asking = partial(click, page, token, made, end)
                    threads = [threading.Thread(target=asking) for _ in range(senders)]
                    if arguments.explain:  # somebody looks in either case
                        threads.append(threading.Thread(target=look, args=(page, end)))
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
                    time.sleep(max(end - time.monotonic(), 0.0))
                    after = [*counts(page), worked(line.pid)]
                    for i, (now, then) in enumerate(zip(after, before, strict=True)):
                        total[i] += now - then
            memory.append(resident(line.pid))
        finally:
            line.terminate()
            line.wait()
    print(
        markdown_table(
            ["senders", "frames", "lost", "images judged", "processor seconds"],
            [[str(senders), *(f"{n:.4g}" for n in total)] for senders, total in sums.items()],
        )
    )
    print(f"memory: {memory[0]} MiB before, {memory[1]} MiB after")
    if made:
        print(f"{len(made)} explanations, each after {statistics.median(made):.2f} s (median)")


if __name__ == "__main__":
    main()
