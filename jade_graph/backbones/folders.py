"""A model's folder: found, checked and named.

Invariant: the version is a hash of the weights themselves, so two folders with the same version hold the same model;
nothing in a folder is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from jade_graph.backbones.contents import TEXT_FILES, count_parameters, require_whole, weight_files
from jade_graph.backbones.named import NAMED, require_added
from jade_graph.errors import BackboneError

_ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = {
    "tiny": _ASSETS / "jade-tiny",
    "tiny-hasty": _ASSETS / "jade-tiny-hasty",
    "tiny-ask": _ASSETS / "jade-tiny-ask",
}
"""Models that the package carries, by name. All speak microworld alone; the second reads worse than it could, the third
was taught the roles that search turn by turn beside JADE's."""


def find_folder(name: str, *, revision: str | None = None, weights: bool = True) -> Path:
    """The local folder of a model: a path, a bundled or named model, or a hub id, downloaded (or taken from the cache
    when offline).

    Raises:
        BackboneError: BACKBONE_NOT_FOUND, BACKBONE_NO_SAFETENSORS, BACKBONE_FILES, WEIGHTS_TRUNCATED, MODEL_NOT_ADDED.
    """
    folder = BUNDLED.get(name) or Path(name).expanduser()
    if name in NAMED and not (folder / "config.json").is_file():  # a folder of that name may hold anything else
        folder = require_added(name)
    if not folder.is_dir():
        folder = _download(name, revision, weights)
    if not (folder / "config.json").is_file() and weights:
        raise BackboneError(
            f"the folder {name!r} holds no config.json: it is no Hugging Face model.",
            code="BACKBONE_NOT_FOUND",
            hint="a folder written by model.save_pretrained(...) and tokenizer.save_pretrained(...)",
        )
    if weights and not weight_files(folder):
        raise BackboneError(
            f"the model {name!r} has no *.safetensors: other formats can run code and are not loaded.",
            code="BACKBONE_NO_SAFETENSORS",
            hint="model.save_pretrained(folder) with a current transformers writes safetensors",
        )
    if weights:
        require_whole(folder)
    return folder


def _download(name: str, revision: str | None, weights: bool) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*TEXT_FILES, "*.safetensors"] if weights else list(TEXT_FILES)
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    try:
        if looks_local:
            raise FileNotFoundError(name)
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = "there is no such folder" if looks_local else f"{type(error).__name__} from the hub"
        raise BackboneError(
            f"no model {name!r}: {reason}.",
            code="BACKBONE_NOT_FOUND",
            known=[
                *BUNDLED,
                *NAMED,
                "a local folder",
                "a hub id such as Qwen/Qwen2.5-1.5B-Instruct",
                "openai:URL#MODEL",
            ],
            hint="check the spelling and the network, or download the model to a folder first",
        ) from error


def taught(name: str) -> frozenset[str]:
    """Codes of the roles that a bundled model was taught, as its `jade.json` says; empty for any other, or unsaid."""
    if name not in BUNDLED:
        return frozenset()
    try:
        about = json.loads((BUNDLED[name] / "jade.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return frozenset()
    return frozenset(about.get("roles") or ())


def content_version(folder: Path, name: str | None = None) -> str:
    """`name@` and the first 12 hexadecimal digits of the weights' SHA-256 (of several files: of their digests).

    A file of the hub's cache is named by its SHA-256, which then need not be computed.
    """
    digests = [(path.name, _digest(path)) for path in weight_files(folder)]
    if len(digests) == 1:
        digest = digests[0][1]
    else:
        digest = hashlib.sha256("".join(f"{name} {value}\n" for name, value in digests).encode()).hexdigest()
    return f"{name or folder.resolve().name}@{digest[:12]}"


def _digest(path: Path) -> str:
    target = path.resolve()
    if target.parent.name == "blobs" and len(target.name) == 64:
        return target.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


__all__ = ["BUNDLED", "content_version", "count_parameters", "find_folder", "taught", "weight_files"]
