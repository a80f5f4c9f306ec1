"""Manifests: what a figure was made with.

Invariant: every reported figure carries one, made of facts read from the machine and passed in by the caller, never
of guesses: what is not known is absent. Figures whose manifests differ in what matters are not compared.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from jade_graph.errors import UsageError, masked

DISTRIBUTION = "jade-graph"
MANIFEST_SCHEMA = 1
# What must agree before two evaluations are compared, unless the caller knows better. `limits_set` are the limits that
# somebody chose, on top of the preset's own.
MATTERS = (
    "schema",
    "dataset_id",
    "limit",
    "sample",
    "corpus_id",
    "encoder",
    "retrieval",
    "rerank",
    "k",
    "seed",
    "sampling",
    "constrained",
    "limits_set",
)


def manifest(*, seeds: Iterable[int] = (), **extra: Any) -> dict[str, Any]:
    """A JSON-ready description of this process and of what the caller adds (corpus_id, k, backbone_version ..).

    None among `extra` means that it does not apply, and is left out.
    """
    out: dict[str, Any] = {
        "schema": MANIFEST_SCHEMA,
        "jade": version(),
        **_commit(_checkout()),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hardware": hardware(),
        "packages": dict(packages()),
    }
    if listed := list(seeds):
        out["seeds"] = listed
    return out | {key: _without_secrets(value) for key, value in extra.items() if value is not None}


def _without_secrets(value: Any) -> Any:
    """The value with the secrets of URLs masked: manifests are kept and shown."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {key: _without_secrets(one) for key, one in value.items()}
    return type(value)(map(_without_secrets, value)) if type(value) in (list, tuple) else value


def differences(
    a: Mapping[str, Any], b: Mapping[str, Any], keys: Iterable[str] = MATTERS
) -> dict[str, tuple[Any, Any]]:
    """The dotted keys in which two manifests differ, with both values (None where one has none)."""
    pairs = {key: (_at(a, key), _at(b, key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def require_alike(a: Mapping[str, Any], b: Mapping[str, Any], keys: Iterable[str] = MATTERS) -> None:
    """Raise `UsageError` MANIFEST_DIFFERS unless two manifests agree in `keys`."""
    if unlike := differences(a, b, keys):
        told = "; ".join(f"{key}: {one!r} and {other!r}" for key, (one, other) in unlike.items())
        raise UsageError(
            f"the two results cannot be compared, their manifests differ: {told}.",
            code="MANIFEST_DIFFERS",
            hint="run both with the same settings",
        )


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested facts by their dotted keys."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _at(values: Mapping[str, Any], key: str) -> Any:
    out: Any = values
    for part in key.split("."):
        if not isinstance(out, Mapping):
            return None
        out = out.get(part)
    return out


@cache
def version() -> str:
    """The installed version of this package."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


@cache
def packages() -> Mapping[str, str]:
    """Installed versions of the packages that this one depends on directly."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required if "extra ==" not in text]
    out = {}
    for name in sorted(names, key=str.lower):
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out


@cache
def _checkout() -> Path | None:
    root = Path(__file__).resolve().parents[2]
    return root if (root / ".git").exists() else None


@cache
def _commit(root: Path | None) -> Mapping[str, Any]:
    """Commit and whether tracked files differ from it; nothing outside a checkout or without git."""
    if root is None:
        return {}
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": head, "modified": bool(changed)}


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, and accelerators where torch is loaded already."""
    out: dict[str, Any] = {"machine": platform.machine(), "cores": cores()}
    if model := cpu_model():
        out["cpu"] = model
    if memory := memory_gib():
        out["memory_gib"] = memory
    torch = sys.modules.get("torch")
    # Asking torch would import it: a manifest made without torch has no use for its threads or devices.
    if torch is not None and hasattr(torch, "get_num_threads"):
        out["torch_threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            out["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return out


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _cpuinfo() -> Mapping[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def cpu_model() -> str:
    return _cpuinfo().get("model name") or platform.processor()


def cpu_flags() -> tuple[str, ...]:
    """The instruction sets that decide how fast a small model runs; empty where the system does not tell."""
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16", "sve")
    known = _cpuinfo()
    found = set((known.get("flags") or known.get("Features") or "").split())
    return tuple(flag for flag in wanted if flag in found)


def memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
