"""Stop a production line when something is wrong with the parts or with the camera.

    python examples/stop_the_line.py runs/latest/bundle 0

One defective part is taken out; several in a row mean that a machine upstream has gone wrong.
Frames without a decision in a row mean that the camera is blind, and a blind camera must not let
parts pass. Put your relay's or PLC's call into `stop_line`.
"""

import argparse
from collections.abc import Iterable

import hvq_edge


def reason_to_stop(decisions: Iterable[hvq_edge.Decision], rejects: int, blind: int) -> str | None:
    """Read decisions until one verdict comes too often in a row.

    Args:
        decisions: as `hvq_edge.inspect` gives them.
        rejects: rejects in a row that stop the line.
        blind: frames without a decision in a row that stop the line.

    Returns:
        Why to stop; None when the decisions end before.
    """
    limits = {"reject": rejects, "no_decision": blind}
    last, in_a_row = "", 0
    for decision in decisions:
        in_a_row = in_a_row + 1 if decision.verdict == last else 1
        last = decision.verdict
        if in_a_row == limits.get(last):
            return f"{in_a_row} x {last} in a row, frame {decision.frame}: {decision.reason}"
    return None


def stop_line(reason: str) -> None:
    """Stand-in for your relay."""
    print(f"STOP: {reason}")


def main() -> int:
    """Watch until the line must stop or the source ends."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", help="folder that hvq-edge export wrote")
    parser.add_argument("camera", help="camera number or address, video file or folder")
    parser.add_argument("--rejects", type=int, default=3, help="rejects in a row (default: 3)")
    parser.add_argument("--blind", type=int, default=10, help="lost frames in a row (default: 10)")
    arguments = parser.parse_args()

    decisions = hvq_edge.inspect(arguments.bundle, camera=arguments.camera)
    reason = reason_to_stop(decisions, arguments.rejects, arguments.blind)
    if reason is None:
        return 0
    stop_line(reason)
    return 1


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except hvq_edge.HvqEdgeError as error:
        raise SystemExit(str(error)) from None
