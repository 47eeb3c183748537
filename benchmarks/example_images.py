"""Run the examples on rendered washers, and make the pictures of examples/README.md of it.

    python examples/rendered_washers.py washers
    hvq-edge train --data washers --preset tiny --out runs/washers
    hvq-edge export runs/washers
    make triton
    PYTHONPATH=tests python -m benchmarks.example_images runs/washers washers examples/pictures

One picture alone: ``--only cpp.svg``, which needs the C++ example built (docs/how-to/cpp.md).

What a picture of a terminal shows is what the programs printed, shortened in the middle and to the
right.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from helpers.patience import until
from helpers.receivers import Broker, free_port
from helpers.triton_server import TritonServer
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from hvq_edge.bundle.opened import open_bundle

EXAMPLES = Path("examples")
COLUMNS = 84
MOST_LINES = 9
"""Of one program's output."""


def printed_by(name: str, *arguments: str | Path) -> list[str]:
    """Run an example to its end; return its lines."""
    command = [sys.executable, EXAMPLES / name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def terminal(path: Path, shown: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Draw commands and what they printed as a terminal; the SVG asks for no font elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    for command, lines in shown:
        console.print(f"[bold]$ {command}[/bold]")
        middle = len(lines) - MOST_LINES
        kept = [*lines[:6], f"… {middle + 1} more", *lines[-2:]]
        for line in kept if middle > 0 else lines:
            rejects = re.search(r"reject\b|ejector. on|STOP|stops", line)
            style = "red" if rejects else "dim" if line.startswith("…") else ""
            console.print(line, style=style, markup=False, no_wrap=True, overflow="ellipsis")
    style = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(str(path), title="", code_format=style.replace("Fira Code", "monospace"))


def mixed(photos: Path, folder: Path) -> Path:
    """Put some good and some defective washers into one folder."""
    folder.mkdir()
    test = photos / "washer" / "test"
    good, bad = (sorted((test / kind).glob("*.png")) for kind in ("good", "defective"))
    for i, path in enumerate([good[0], bad[0], good[1], good[2], bad[1], bad[2], bad[3], good[3]]):
        (folder / f"part{i}.png").write_bytes(path.read_bytes())
    return folder


def washers(photos: Path, path: Path) -> None:
    """Show one washer of each kind."""
    test = photos / "washer" / "test"
    chosen = [test / "good/000.png", *(test / f"defective/{i:03}.png" for i in range(3))]
    read = [cv2.imread(str(one)) for one in chosen]
    cv2.imwrite(str(path), np.hstack([one for one in read if one is not None]))


def of_the_notebook(path: Path) -> None:
    """Take the last picture that the notebook was committed with."""
    notebook = json.loads((EXAMPLES / "photos_to_verdicts.ipynb").read_text(encoding="utf-8"))
    outputs = [one for cell in notebook["cells"] for one in cell.get("outputs", ())]
    pictures = [one["data"]["image/jpeg"] for one in outputs if "image/jpeg" in one.get("data", {})]
    read = cv2.imdecode(np.frombuffer(b64decode(pictures[-1]), np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    cv2.imwrite(str(path), read)


def over_mqtt(bundle: Path, parts: Path, folder: Path) -> list[tuple[str, Sequence[str]]]:
    """Run broker, controller, bridge and inspector; return what controller and bridge printed."""
    broker, port = Broker(folder), free_port()
    started = {
        "simulator.py": ("--port", str(port)),
        "mqtt_to_plc.py": ("--broker", f"127.0.0.1:{broker.port}", "--plc", f"127.0.0.1:{port}"),
    }
    logs = {name: folder / name for name in started}
    with ExitStack() as stack:
        stack.callback(broker.stop)
        for name, arguments in started.items():
            log = stack.enter_context(logs[name].open("w"))
            command = [sys.executable, str(EXAMPLES / "plc" / name), *arguments]
            process = subprocess.Popen(command, stdout=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            until(logs[name].read_text)
        line = (EXAMPLES / "plc/line.toml").read_text(encoding="utf-8")
        line = line.replace("runs/latest/bundle", str(bundle)).replace("parts.avi", str(parts))
        line = line.replace('"inspection"', f'"{folder}/inspection"') + f"port = {broker.port}\n"
        (folder / "line.toml").write_text(line, encoding="utf-8")
        stream = [sys.executable, "-m", "hvq_edge", "stream", "--config", f"{folder}/line.toml"]
        subprocess.run(stream, check=True, capture_output=True)
        until(lambda: "the line stops" in logs["simulator.py"].read_text())
    said = {name: log.read_text().replace(str(port), "5020") for name, log in logs.items()}
    return [
        ("python examples/plc/mqtt_to_plc.py &", said["mqtt_to_plc.py"].splitlines()),
        ("hvq-edge stream --config examples/plc/line.toml >/dev/null 2>&1 &", []),
        ("python examples/plc/simulator.py", said["simulator.py"].splitlines()),
    ]


def in_cpp(judge: Path, bundle: Path, parts: Path) -> list[tuple[str, Sequence[str]]]:
    """Run the C++ example; return what it printed."""
    images = sorted(parts.iterdir())
    command: list[str | Path] = [judge, bundle, *(image.name for image in images)]
    done = subprocess.run(command, cwd=parts, capture_output=True, text=True, check=True)
    return [("hvq_judge runs/latest/bundle part*.png", done.stdout.splitlines())]


def main() -> None:
    """Make all of them, or one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", metavar="PICTURE", help="as its file is called")
    parser.add_argument("--judge", type=Path, default="build/hvq_judge", help="the C++ example")
    arguments = parser.parse_args()
    bundle, out = (arguments.run / "bundle").resolve(), arguments.out
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = mixed(arguments.photos, folder / "parts")
        here = "runs/latest/bundle parts"

        def example(path: Path) -> None:
            command = f"python examples/{path.stem}.py {here}"
            terminal(path, [(command, printed_by(f"{path.stem}.py", bundle, parts))])

        def triton(path: Path) -> None:
            with TritonServer(folder / "server") as server:
                server.serve(open_bundle(bundle))
                lines = printed_by("triton_client.py", server.address, bundle, parts)
            command = f"python examples/triton_client.py localhost:8001 {here}"
            terminal(path, [(command, lines)])

        pictures: dict[str, Callable[[Path], None]] = {
            "washers.jpg": partial(washers, arguments.photos),
            "notebook.jpg": of_the_notebook,
            "inspector.svg": example,
            "stop_the_line.svg": example,
            "plc.svg": lambda path: terminal(path, over_mqtt(bundle, parts, folder)),
            "triton.svg": triton,
            "cpp.svg": lambda path: terminal(
                path, in_cpp(arguments.judge.resolve(), bundle, parts)
            ),
        }
        for picture, make in pictures.items():
            if arguments.only in (None, picture):
                make(out / picture)


if __name__ == "__main__":
    main()
