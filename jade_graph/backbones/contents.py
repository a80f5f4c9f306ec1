"""Which files of a model's folder a loader will read, looked at before any of them is opened as a model.

Invariant: what is checked is what is loaded. The weights are resolved as transformers resolves them, lie in the folder
itself, also behind links, are regular safetensors files with a whole header, and are among those that the version is a
hash of; whatever else a folder asks for is refused.
"""

from __future__ import annotations

import json
import stat
import struct
from pathlib import Path
from typing import Any

from jade_graph.backbones.seal import require_sealed
from jade_graph.errors import BackboneError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TEXT_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
_LONGEST = 100_000_000  # bytes of a header: safetensors' own bound
_BYTES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2},
    **{"U8": 1, "BOOL": 1, "C64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1},
}


def weight_files(folder: Path) -> list[Path]:
    """Every safetensors file of the folder: what its version is a hash of."""
    return sorted(folder.glob("*.safetensors"))


def require_whole(folder: Path, *, adapter: bool = False) -> list[Path]:
    """The weights that a loader will read from this folder, each looked at.

    Args:
        adapter: the folder is a LoRA adapter, not a model.

    Raises:
        BackboneError: BACKBONE_FILES, naming the file and why it is not read; BACKBONE_NO_SAFETENSORS;
            MODEL_DAMAGED, for a bundled model that is not the repository's.
    """
    require_sealed(folder)
    names = [ADAPTER_WEIGHTS] if adapter else _named(folder)
    hashed = {path.name for path in weight_files(folder)}
    found = []
    for name in names:
        path = folder / name
        if Path(name).name != name or not name.endswith(".safetensors") or name not in hashed:
            raise _refused(folder, f"its weights are to be read from {name!r}, which is no safetensors file of it")
        _require_own(folder, path)
        header(path)
        found.append(path)
    for pattern in TEXT_FILES:
        for path in folder.glob(pattern):
            _require_own(folder, path)
    if not found:
        raise BackboneError(
            f"the model {str(folder)!r} has no {WEIGHTS}: other formats can run code and are not loaded.",
            code="BACKBONE_NO_SAFETENSORS",
            hint="model.save_pretrained(folder) with a current transformers writes safetensors",
        )
    return found


def _named(folder: Path) -> list[str]:
    """Names of the weights as transformers picks them: what the config names, one file, or the shards of an index."""
    if (folder / ADAPTER).exists():
        raise _refused(folder, f"{ADAPTER} beside a model would load another model, which it names")
    config = _object(folder / "config.json") if (folder / "config.json").exists() else {}
    chosen = config.get("transformers_weights")
    if chosen is None:
        chosen = WEIGHTS if (folder / WEIGHTS).exists() else INDEX if (folder / INDEX).exists() else None
    if chosen is None:
        return []
    if not isinstance(chosen, str) or not chosen.endswith(".index.json"):
        return [str(chosen)]
    _require_own(folder, folder / chosen)
    shards = _object(folder / chosen).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise _refused(folder, f"{chosen} maps no weights to files")
    return sorted({str(name) for name in shards.values()})


def _object(path: Path) -> dict[str, Any]:
    _require_own(path.parent, path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BackboneError(
            f"{str(path)!r} is no JSON: {type(error).__name__}: {str(error)[:200]}.", code="BACKBONE_LOAD"
        ) from error
    return value if isinstance(value, dict) else {}


def _require_own(folder: Path, path: Path) -> None:
    """Refuse what is no regular file of this folder; links lead within it, into the hub's cache, or to a bundle."""
    try:
        real = path.resolve(strict=True)
        regular = stat.S_ISREG(real.stat().st_mode)
    except (OSError, RuntimeError) as error:
        raise _refused(folder, f"{path.name!r} cannot be read: {error}") from error
    if not regular:
        raise _refused(folder, f"{path.name!r} is no regular file")
    home = folder.resolve()
    roots = [home]
    if home.parent.name == "snapshots":
        roots.append(home.parent.parent / "blobs")
    if not any(real.is_relative_to(root) for root in roots) and not _stored(real):
        raise _refused(folder, f"{path.name!r} leads out of the folder, to {str(real)!r}")


def _stored(real: Path) -> bool:
    """Whether a file is one of a registry's bundle: the registry links fetched versions to what it has checked."""
    return real.parent.name == "model" and (real.parent.parent / "files.json").is_file()


def _refused(folder: Path, why: str) -> BackboneError:
    return BackboneError(
        f"the model {str(folder)!r} is not loaded: {why}.",
        code="BACKBONE_FILES",
        hint="a folder written by model.save_pretrained(..), with every file in it",
    )


def header(path: Path) -> dict[str, Any]:
    """The tensors that a safetensors file says to hold, by name, checked against its size.

    Raises:
        BackboneError: WEIGHTS_TRUNCATED, for a file that is cut off or no safetensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, _LONGEST):
                raise ValueError(f"a header of {length} bytes is in a file of {size}")
            found: Any = json.loads(file.read(length))
        if not isinstance(found, dict):
            raise ValueError("its header is no object")
        tensors = {name: about for name, about in found.items() if name != "__metadata__"}
        for name, about in tensors.items():
            begin, end = about["data_offsets"]
            if not 0 <= begin <= end <= size - 8 - length:
                raise ValueError(f"the tensor {name!r} lies outside of it")
            if about["dtype"] in _BYTES and _count(about["shape"]) * _BYTES[about["dtype"]] != end - begin:
                raise ValueError(f"the tensor {name!r} has other than its {end - begin} bytes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise BackboneError(
            f"{path.name} is cut off or no safetensors file: {type(error).__name__}: {str(error)[:200]}",
            code="WEIGHTS_TRUNCATED",
            hint="copy or save the model again",
        ) from error
    return tensors


def _count(shape: list[int]) -> int:
    count = 1
    for extent in shape:
        if not isinstance(extent, int) or extent < 0:
            raise ValueError(f"the shape {shape!r} is none")
        count *= extent
    return count


def count_parameters(folder: Path) -> int:
    """Numbers stored in the folder's weights, read from the files' headers. Raises as `header`."""
    return sum(_count(about["shape"]) for path in weight_files(folder) for about in header(path).values())
