"""Judge every image of a folder and name the rejects.

    python examples/inspect_folder.py runs/latest/bundle images/

Ends with exit code 1 when an image was rejected or could not be judged, so that a script can
act on it. A video file or a camera address works as well.
"""

import argparse
from collections import Counter

import hvq_edge


def main() -> int:
    """Print one line an image, then the totals."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", help="folder that hvq-edge export wrote")
    parser.add_argument("images", help="folder of images, video file or camera")
    arguments = parser.parse_args()

    totals: Counter[str] = Counter()
    for decision in hvq_edge.inspect(arguments.bundle, camera=arguments.images):
        totals[decision.verdict] += 1
        print(f"{decision.frame:5d}  {decision.verdict:<11}  {decision.reason}")
    print(", ".join(f"{count} {verdict}" for verdict, count in totals.items()))
    return 0 if set(totals) <= {"pass"} else 1


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except hvq_edge.HvqEdgeError as error:
        raise SystemExit(str(error)) from None
