"""Bytes that atheris makes up, into what takes bytes from elsewhere: does anything unforeseen come?

    pip install -c constraints.txt -e '.[fuzz]'
    python -m benchmarks.fuzz pack -max_total_time=600
    python -m benchmarks.fuzz --list

It begins with the corpus in `tests/data/fuzz` and ends at the first fault, whose bytes it writes to
`crash-...`. Once the fault is mended they go into the corpus, which the tests run. What comes
behind the target's name goes to libFuzzer (`-help=1` lists it).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"


def main() -> None:
    """Fuzz one target."""
    try:
        import atheris
    except ImportError:
        raise SystemExit("atheris is not installed: pip install -e '.[fuzz]'") from None
    sys.path.append(str(TESTS))
    with atheris.instrument_imports(include=["hvq_edge"]):
        from helpers.fuzz_targets import TARGETS
    name, *options = sys.argv[1:] or ["--list"]
    if name not in TARGETS:
        print("\n".join(TARGETS))
        return
    corpus = TESTS / "data" / "fuzz" / name
    with tempfile.TemporaryDirectory() as found:  # libFuzzer adds to the first folder only
        atheris.Setup([sys.argv[0], *options, found, str(corpus)], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
