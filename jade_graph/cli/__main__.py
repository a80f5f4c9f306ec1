"""`python -m jade_graph.cli` is `jade`."""

from jade_graph.cli import entry

if __name__ == "__main__":
    entry()
