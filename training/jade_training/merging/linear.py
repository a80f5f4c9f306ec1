"""Linear combinations of weights, in memory and from file to file.

Invariant: what is combined has equal names and shapes. Sums are made in float32 (float64 where a parent is), in an
order that the parents and their coefficients decide, so that naming them otherwise changes no bit; one parent alone
comes out as it went in. From file to file, a few blocks of a tensor are in memory, whatever the size of the models.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from jade_graph.backbones.contents import header
from jade_graph.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    State = Mapping[str, Tensor]

_BLOCK = 2**22  # numbers at a time
_TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "BOOL": "bool",
}  # fmt: skip
_WIDTH = ("F8_E5M2", "F8_E4M3", "F16", "BF16", "F32", "F64")


# --- in memory --------------------------------------------------------------------------------------------------------
def combine(states: Sequence[State], coefficients: Sequence[float]) -> dict[str, Tensor]:
    """sum_i c_i state_i, tensor by tensor, in the number format of the widest.

    Tensors that share memory stay one. Integers are not averaged: they are those of the parent that weighs most, and
    may differ between parents in single numbers (counters) alone.

    Raises `UsageError` MERGE_DIFFERS, MERGE_EMPTY, MERGE_COUNT.
    """
    counted(states, coefficients)
    for i, state in enumerate(states):
        shapes = {name: tuple(t.shape) for name, t in state.items()}
        _require_equal({name: tuple(t.shape) for name, t in states[0].items()}, shapes, "0", str(i))
    order = ordered([_digest(state) for state in states], coefficients)
    out: dict[str, Tensor] = {}
    made: dict[tuple[int, ...], Tensor] = {}
    for name in states[0]:
        tensors = [states[i][name] for i in order]
        # Tied weights are one tensor in every parent, and are combined once.
        place = tuple(t.data_ptr() for t in tensors)
        if not tensors[0].numel() or place not in made:
            made[place] = _combined(name, tensors, [coefficients[i] for i in order])
        out[name] = made[place]
    return out


def _combined(name: str, tensors: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    if not tensors[0].is_floating_point():
        return _kept(name, tensors, coefficients).clone()
    import functools

    import torch

    kind = functools.reduce(torch.promote_types, (t.dtype for t in tensors))
    return _summed(tensors, coefficients).to(kind)


def _summed(tensors: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """In float32, or float64 where one of them is."""
    import torch

    wide = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    parts = [(t, c) for t, c in zip(tensors, coefficients, strict=True) if c]
    if not parts:
        return torch.zeros_like(tensors[0], dtype=wide)
    total = parts[0][0].to(wide, copy=True)
    if parts[0][1] != 1.0:
        total.mul_(parts[0][1])
    for tensor, c in parts[1:]:
        total.add_(tensor.to(wide), alpha=c)
    return total


def _kept(name: str, tensors: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    import torch

    if tensors[0].numel() > 1 and not all(torch.equal(tensors[0], t) for t in tensors[1:]):
        raise _differs(f"{name!r} holds integers that differ: quantised weights and tables are not averaged")
    return tensors[max(range(len(tensors)), key=lambda i: coefficients[i])]


def _digest(state: State) -> str:
    """A name for a state that its numbers decide."""
    import hashlib

    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode())
        flat = state[name].detach().cpu().contiguous().reshape(-1)
        found.update(_bytes(flat))
    return found.hexdigest()


def _bytes(flat: Tensor) -> Any:
    """A flat tensor's memory."""
    import torch

    return flat.view(torch.uint8).numpy().data


def ordered(names: Sequence[str], coefficients: Sequence[float]) -> list[int]:
    """Places in the order in which sums are made: that of the parents' own names."""
    return sorted(range(len(names)), key=lambda i: (names[i], coefficients[i]))


def counted(parents: Sequence[Any], coefficients: Sequence[float]) -> None:
    if not parents:
        raise UsageError("nothing is named to be merged.", code="MERGE_EMPTY", hint="jade merge --last 8")
    if len(parents) != len(coefficients):
        raise UsageError(
            f"{len(parents)} models have {len(coefficients)} coefficients.", code="MERGE_COUNT", hint="one for each"
        )


def _require_equal(first: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]], a: str, b: str) -> None:
    for name in sorted(first.keys() ^ other.keys()):
        raise _differs(f"{name!r} is in {a if name in first else b} alone")
    for name, shape in first.items():
        if other[name] != shape:
            raise _differs(f"{name!r} is {list(shape)} in {a} and {list(other[name])} in {b}")


def _differs(what: str) -> UsageError:
    return UsageError(
        f"these weights cannot be combined: {what}.",
        code="MERGE_DIFFERS",
        hint="merge versions that were trained from one model",
    )


# --- from file to file ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a safetensors file: where its numbers lie, from `start` to `end` in bytes."""

    file: Path
    kind: str
    shape: tuple[int, ...]
    start: int
    end: int


def stored(files: Iterable[Path]) -> dict[str, Stored]:
    """The tensors of safetensors files by name. Raises `BackboneError` WEIGHTS_TRUNCATED."""
    found: dict[str, Stored] = {}
    for file in files:
        tensors = header(file)
        with file.open("rb") as opened:
            data = 8 + int(struct.unpack("<Q", opened.read(8))[0])
        for name, about in tensors.items():
            start, end = (data + at for at in about["data_offsets"])
            found[name] = Stored(file, about["dtype"], tuple(about["shape"]), start, end)
    return found


def merge_files(
    parents: Sequence[Sequence[Path]], names: Sequence[str], coefficients: Sequence[float], into: Path
) -> None:
    """Write sum_i c_i parent_i; the parents are lists of safetensors files, the result is one file.

    Args:
        names: of the parents, e.g. their content versions: they decide the order of the sums.

    Raises:
        UsageError: MERGE_DIFFERS, MERGE_EMPTY, MERGE_COUNT. BackboneError: WEIGHTS_TRUNCATED.
    """
    counted(parents, coefficients)
    order = ordered(names, coefficients)
    tensors = [stored(parents[i]) for i in order]
    weigh = [coefficients[i] for i in order]
    shapes = [{name: t.shape for name, t in found.items()} for found in tensors]
    for i, other in zip(order, shapes, strict=True):
        _require_equal(shapes[0], other, names[order[0]], names[i])
    for name in tensors[0]:
        strange = {found[name].kind for found in tensors} - set(_TORCH)
        if strange:
            raise _differs(f"{name!r} is stored as {', '.join(sorted(strange))}, which is not averaged")
    plan = {name: (_widest([found[name].kind for found in tensors]), tensors[0][name].shape) for name in tensors[0]}
    with Files() as files, Writer(into, plan) as out:
        for name in out.order:
            out.put(block for block in _blocks(files, name, [found[name] for found in tensors], weigh, plan[name][0]))


def _blocks(
    files: Files, name: str, parts: Sequence[Stored], coefficients: Sequence[float], kind: str
) -> Iterable[Tensor]:
    if kind not in _WIDTH:
        yield _kept(name, [files.read(part, 0, math.prod(part.shape)) for part in parts], coefficients)
        return
    for at in range(0, math.prod(parts[0].shape), _BLOCK):
        upto = min(at + _BLOCK, math.prod(parts[0].shape))
        yield _summed([files.read(part, at, upto) for part in parts], coefficients)


def _widest(kinds: Sequence[str]) -> str:
    """The number format that holds all of them; of two halves of one width float32."""
    if len(set(kinds)) == 1:
        return kinds[0]
    if not set(kinds) <= set(_WIDTH):
        raise _differs(f"one tensor is stored as {' and as '.join(sorted(set(kinds)))}")
    return max((*kinds, *(["F32"] if {"F16", "BF16"} <= set(kinds) else [])), key=_WIDTH.index)


def dtype_of(kind: str) -> torch.dtype:
    """The torch format of a safetensors one."""
    import torch

    found: torch.dtype = getattr(torch, _TORCH[kind])
    return found


class Files:
    """Open files, read by offsets: what is mapped would count as memory."""

    def __init__(self) -> None:
        self._open: dict[Path, BinaryIO] = {}

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._open.values():
            file.close()

    def blocks(self, part: Stored) -> Iterable[Tensor]:
        """A tensor as it is, flat, block by block."""
        size = math.prod(part.shape)
        for at in range(0, size, _BLOCK):
            yield self.read(part, at, min(at + _BLOCK, size))

    def whole(self, part: Stored) -> Tensor:
        """A tensor in its shape."""
        return self.read(part, 0, math.prod(part.shape)).reshape(part.shape)

    def read(self, part: Stored, first: int, last: int) -> Tensor:
        """The numbers first .. last of a tensor, flat."""
        import torch

        kind = dtype_of(part.kind)
        if part.file not in self._open:
            self._open[part.file] = part.file.open("rb", buffering=0)
        file, size = self._open[part.file], kind.itemsize
        held = bytearray((last - first) * size)
        if not held:
            return torch.empty(0, dtype=kind)
        file.seek(part.start + first * size)
        view, done = memoryview(held), 0
        while done < len(held):
            read = file.readinto(view[done:])  # type: ignore[attr-defined]
            if not read:
                raise _differs(f"{part.file.name} ends before its tensors do")
            done += read
        return torch.frombuffer(held, dtype=kind)


class Writer:
    """A safetensors file, written tensor by tensor: only what is put is in memory.

    `plan` has the format and the shape of every tensor by name; they are put in `order`.
    """

    def __init__(self, path: Path, plan: Mapping[str, tuple[str, Sequence[int]]]) -> None:
        self._path, self._plan = path, plan
        # As the library writes them: wide formats first, so that each begins at a multiple of its width.
        self.order = sorted(plan, key=lambda name: (-dtype_of(plan[name][0]).itemsize, name))
        about: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        at = 0
        for name in self.order:
            kind, shape = plan[name]
            end = at + math.prod(shape) * dtype_of(kind).itemsize
            about[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
            at = end
        text = json.dumps(about, separators=(",", ":")).encode()
        self._head = text + b" " * (-len(text) % 8)
        self._left = list(self.order)
        self._file: BinaryIO | None = None

    def __enter__(self) -> Writer:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("wb")
        self._file.write(struct.pack("<Q", len(self._head)) + self._head)
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
        if error[0] is not None:
            self._path.unlink(missing_ok=True)  # half a file is none

    def put(self, blocks: Iterable[Tensor]) -> None:
        """The numbers of the next tensor of `order`, in blocks, in any format."""

        assert self._file is not None
        kind = dtype_of(self._plan[self._left.pop(0)][0])
        for block in blocks:
            flat = block.to(kind).contiguous().reshape(-1)
            if flat.numel():
                self._file.write(_bytes(flat))


__all__ = ["Files", "Stored", "Writer", "combine", "counted", "dtype_of", "merge_files", "ordered", "stored"]
