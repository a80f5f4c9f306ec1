"""The bundled models are those of the repository: their files' hashes are kept beside them and compared on loading.

Invariant: a file of a bundled model is read only where its SHA-256 is the recorded one, and no file that was not
recorded is there to be read. `tools/seal.py` writes the hashes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from jade_graph.errors import BackboneError

ASSETS = Path(__file__).parent.parent / "assets"
SEAL = "hashes.json"
_ASIDE = ("README.md", "figures.json")


def require_sealed(folder: Path, assets: Path = ASSETS) -> None:
    """Nothing for a folder that is no bundled model's.

    Args:
        assets: where the bundled models and their hashes are.

    Raises:
        BackboneError: MODEL_DAMAGED, naming the first file that is missing, another, or not recorded.
    """
    real = folder.resolve()
    if real.parent != assets.resolve():
        return
    try:
        recorded: dict[str, str] = json.loads((assets / SEAL).read_text("utf-8"))
        own = {Path(name).name: value for name, value in recorded.items() if Path(name).parent.as_posix() == real.name}
    except (OSError, ValueError, AttributeError) as error:
        raise _damaged(real, f"its list of hashes cannot be read: {error}") from error
    there = {path.name for path in real.iterdir() if path.name not in _ASIDE}
    for name in sorted(own.keys() | there):
        if name not in own:
            raise _damaged(real, f"{name} is no file of it")
        if name not in there:
            raise _damaged(real, f"{name} is missing")
        with (real / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != own[name]:
                raise _damaged(real, f"{name} is not the file that belongs to it")


def _damaged(folder: Path, why: str) -> BackboneError:
    return BackboneError(
        f"the bundled model {folder.name!r} is not used: {why}.",
        code="MODEL_DAMAGED",
        hint="install the package again; after making a bundled model anew: python tools/seal.py",
    )
