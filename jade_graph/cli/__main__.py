"""`python -m jade_graph.cli` is `jade`."""

import sys

from jade_graph.cli import main

if __name__ == "__main__":
    sys.exit(main())
