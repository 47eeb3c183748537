"""``python -m hvq_edge`` is ``hvq-edge``."""

from hvq_edge.cli.app import main

if __name__ == "__main__":
    main()
