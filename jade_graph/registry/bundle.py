"""A model folder as it is stored: copied, hashed, described.

Invariant: what is hashed is what is stored. Files are copied first and only then looked at, so that a folder which is
being written cannot be registered half; equal files give equal digests, whatever else lies beside them.

A bundle: `model/` (the Hugging Face folder: safetensors, tokenizer, jade.json; or a LoRA adapter), `value_head/`
(of the learner), `manifest.json`, `files.json` (SHA-256 of each file of the two) and `README.md` (the model card).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jade_graph.backbones.codec import read_json
from jade_graph.backbones.contents import TEXT_FILES
from jade_graph.backbones.folders import content_version
from jade_graph.errors import BackboneError, RegistryError

MODEL_DIR, HEAD_DIR = "model", "value_head"
FILES, MANIFEST, CARD = "files.json", "manifest.json", "README.md"
ADAPTER = "adapter_config.json"
_WEIGHTS = ("model*.safetensors", "adapter_model*.safetensors")
_HEAD = "value_head.safetensors"
# Written beside a model by those who measure or train it: no part of what it computes.
_ASIDE = frozenset({"figures.json", MANIFEST, FILES, "trainer.json", "trainer_state.json", "improve.json"})


@dataclass(frozen=True, slots=True)
class Bundle:
    """A staged bundle.

    Attributes:
        root: its folder.
        digest: SHA-256 over the names and hashes of all model and value-head files.
        files: path in the bundle to SHA-256.
        base: of a LoRA adapter: the model it changes, as the adapter names it.
    """

    root: Path
    digest: str
    files: Mapping[str, str]
    base: str | None = None

    @property
    def model(self) -> Path:
        return self.root / MODEL_DIR

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum((self.root / name).stat().st_size for name in self.files)

    def tokenizer_digest(self) -> str:
        """SHA-256 of what turns text into tokens; equal for models that share it."""
        return tokenizer_digest(self.model)


def stage(source: Path, root: Path) -> Bundle:
    """Copy a model folder into `root` as a bundle, still without manifest and card.

    Raises:
        BackboneError: BACKBONE_NOT_FOUND, BACKBONE_NO_SAFETENSORS.
        RegistryError: MODEL_CHANGED when a file goes away while it is copied.
    """
    if not source.is_dir():
        raise BackboneError(
            f"there is no folder {str(source)!r}.", code="BACKBONE_NOT_FOUND", hint="jade register FOLDER"
        )
    adapter = (source / ADAPTER).is_file()
    patterns = (*TEXT_FILES, *_WEIGHTS)
    names = sorted({p.name for pattern in patterns for p in source.glob(pattern) if p.is_file()} - _ASIDE)
    weights = [name for name in names if name.endswith(".safetensors")]
    if not adapter and "config.json" not in names:
        raise BackboneError(
            f"the folder {str(source)!r} holds no config.json: it is no Hugging Face model.",
            code="BACKBONE_NOT_FOUND",
            hint="a folder written by model.save_pretrained(...) and tokenizer.save_pretrained(...), or a LoRA adapter",
        )
    if not weights:
        raise BackboneError(
            f"the model {str(source)!r} has no model*.safetensors: other formats can run code and are not registered.",
            code="BACKBONE_NO_SAFETENSORS",
            hint="model.save_pretrained(folder) with a current transformers writes safetensors",
        )
    copied = [(source / name, Path(MODEL_DIR) / name) for name in names]
    copied += [(p, Path(HEAD_DIR) / _HEAD) for p in (source / _HEAD, source / HEAD_DIR / _HEAD) if p.is_file()][:1]
    try:
        for path, name in copied:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, root / name)
    except FileNotFoundError as error:
        raise RegistryError(
            f"the folder {str(source)!r} changed while it was read: {Path(str(error.filename)).name} is gone.",
            code="MODEL_CHANGED",
            hint="register it when whoever writes it is done",
        ) from error
    files = {name.as_posix(): sha256(root / name) for _, name in sorted(copied, key=lambda pair: pair[1])}
    (root / FILES).write_text(json.dumps(files, indent=1) + "\n", encoding="utf-8")
    base = str(read_json(root / MODEL_DIR / ADAPTER).get("base_model_name_or_path") or "") if adapter else None
    return Bundle(root, digest_of(files), files, base)


def open_bundle(root: Path, digest: str, reference: str) -> Bundle:
    """A bundle that was stored, its files checked.

    Raises:
        RegistryError: VERSION_CORRUPT, naming the first file that is missing or other than it was.
    """
    try:
        files: dict[str, str] = json.loads((root / FILES).read_text(encoding="utf-8"))
        if not isinstance(files, dict) or not all(isinstance(v, str) and _plain(name) for name, v in files.items()):
            raise ValueError("it is no list of files with their hashes")
    except (OSError, ValueError, RecursionError) as error:
        raise corrupt(reference, f"its {FILES} cannot be read: {error}") from error
    if digest_of(files) != digest:
        raise corrupt(reference, f"its {FILES} is not the one that was registered")
    for name, expected in files.items():
        path = root / name
        if not path.is_file():
            raise corrupt(reference, f"{name} is missing")
        if sha256(path) != expected:
            raise corrupt(reference, f"{name} is not the file that was registered")
    base = str(read_json(root / MODEL_DIR / ADAPTER).get("base_model_name_or_path") or "") or None
    return Bundle(root, digest, files, base)


def _plain(name: str) -> bool:
    """Whether a name is of a file in one of the bundle's two folders."""
    parts = Path(name).parts
    return len(parts) == 2 and parts[0] in (MODEL_DIR, HEAD_DIR) and parts[1] not in ("..", ".")


def corrupt(reference: str, what: str) -> RegistryError:
    return RegistryError(
        f"the stored version {reference} is damaged: {what}.",
        code="VERSION_CORRUPT",
        hint="jade register FOLDER with the same model mends it; or go back: jade rollback",
    )


def content(folder: Path, name: str) -> str:
    """What runs of a model in a folder of this name record as their backbone's version."""
    return content_version(folder, name)


def digest_of(files: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{name} {value}\n" for name, value in sorted(files.items())).encode()).hexdigest()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 of the vocabulary and merges of a folder's tokenizer, "" where it has no such file.

    Not of its settings: transformers writes these anew with each of its versions.
    """
    value = read_json(folder / "tokenizer.json")
    if value:
        part: Any = {key: value.get(key) for key in ("model", "added_tokens", "normalizer", "pre_tokenizer")}
        return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
    for name in ("tokenizer.model", "vocab.json", "vocab.txt"):
        if (folder / name).is_file():
            return sha256(folder / name)
    return ""
