"""Write down the SHA-256 of every file of the bundled models, which are compared whenever one of them is loaded.

Run after a bundled model was made anew: `python tools/seal.py`. With `--check` nothing is written; exit code 1 where a
hash is of another file. README.md and figures.json are left out: they say something of a model, and are no part of it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

ASSETS = Path(__file__).parent.parent / "jade_graph" / "assets"
SEAL = ASSETS / "hashes.json"
ASIDE = ("README.md", "figures.json")


def hashes() -> dict[str, str]:
    """SHA-256 by path below the assets, of every file of a folder that holds a model."""
    folders = sorted(path.parent for path in ASSETS.glob("*/jade.json"))
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.name not in ASIDE]
    return {path.relative_to(ASSETS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> int:
    text = json.dumps(hashes(), indent=1) + "\n"
    if "--check" in sys.argv:
        return int(not SEAL.is_file() or SEAL.read_text("utf-8") != text)
    SEAL.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
