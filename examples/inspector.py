"""An inspector in 20 lines: judge what a camera sees, and act on each reject.

    python examples/inspector.py runs/latest/bundle 0

Put your relay's or blower's call where a reject is printed. A folder or a video does in place of
the camera; then it ends with exit code 1 when a part was rejected or could not be judged.
"""

import argparse
from collections import Counter

import hvq_edge

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("bundle", help="folder that hvq-edge export wrote")
parser.add_argument("camera", help="camera number or address, video file or folder")
arguments = parser.parse_args()
totals: Counter[str] = Counter()
try:
    for decision in hvq_edge.inspect(arguments.bundle, camera=arguments.camera):
        totals[decision.verdict] += 1
        print(f"{decision.frame:5d}  {decision.verdict:<11}  {decision.reason}")
        if decision.verdict == "reject":
            print("       out with it: your call here")
except KeyboardInterrupt:
    pass
except hvq_edge.HvqEdgeError as error:
    raise SystemExit(str(error)) from None
print(", ".join(f"{count} {verdict}" for verdict, count in totals.items()))
raise SystemExit(0 if set(totals) <= {"pass"} else 1)
