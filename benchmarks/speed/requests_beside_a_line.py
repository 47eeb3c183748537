"""What images over HTTP cost a line: frames lost and memory, while programs post without a pause.

    python -m benchmarks.speed.requests_beside_a_line runs/latest/bundle parts.avi part.png

The line is `hvq-edge stream --play --page`, the senders ask for overlays. Seconds with and without
them take turns, so that a busy machine meets both.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
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


def resident(process: int) -> int:
    """Return a process's memory in MiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) >> 10


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("video", type=Path, help="played at its own rate, over and over")
    parser.add_argument("image", type=Path, help="that is posted")
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8)
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
            sums = {senders: [0.0] * len(COUNTED) for senders in (0, arguments.senders)}
            for _ in range(arguments.rounds):
                for senders, total in sums.items():
                    before, end = counts(page), time.monotonic() + TURN_SECONDS
                    threads = [
                        threading.Thread(target=post, args=(page, token, content, end))
                        for _ in range(senders)
                    ]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
                    time.sleep(max(end - time.monotonic(), 0.0))
                    for i, (now, then) in enumerate(zip(counts(page), before, strict=True)):
                        total[i] += now - then
            memory.append(resident(line.pid))
        finally:
            line.terminate()
            line.wait()
    print(
        markdown_table(
            ["senders", "frames", "lost", "images judged"],
            [[str(senders), *(f"{n:.0f}" for n in total)] for senders, total in sums.items()],
        )
    )
    print(f"memory: {memory[0]} MiB before, {memory[1]} MiB after")


if __name__ == "__main__":
    main()
