"""Settings: what they mean, and where each value came from.

Invariant: a setting is one field with a default and a one-line meaning; every other source (files, environment, command
line) must name an existing key and give a value of its type, else loading fails and says where. Sources, the later
wins: defaults, the user's config.toml, the project's jade.toml (or --config), JADE_* variables, --set. The project's
file is that of the working folder or of the nearest folder above it; the data folder of such a project lies beside it.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args, get_type_hints

from jade_graph.errors import ConfigError, masked
from jade_graph.settings.fields import MICROWORLD, SMOL, Settings
from jade_graph.types import Limits

ENV_PREFIX = "JADE_"
ENV_CONFIG = "JADE_CONFIG"
PROJECT_FILE = "jade.toml"
_PATHS = ("data_dir", "backbone", "frozen_backbone", "encoder", "reload.smoke", "serve.keys_file")
_RESERVED = frozenset({ENV_CONFIG})
_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})


# `Limits` belongs to the types that everybody speaks; its meanings live here.
_LIMITS = {
    "rounds": "most rounds (plan and its executors) of one run",
    "depth": "how often a sub-question may itself be split; 0: no splitting",
    "sub_questions": "most sub-questions of one run",
    "retrievals": "most searches of one run",
    "tokens": "most prompt and action tokens of one run",
    "deadline_s": "seconds of wall clock that one run may take",
    "decomposition_width": "most sub-questions of one split",
}
SECRETS = frozenset({"api_key", "serve.keys"})


class Key(NamedTuple):
    """One setting: dotted name, type, default, meaning, choices, least value."""

    name: str
    type: Any
    default: Any
    meaning: str
    choices: tuple[str, ...] = ()
    at_least: float | None = None

    @property
    def optional(self) -> bool:
        return NoneType in get_args(self.type)

    @property
    def base(self) -> type:
        """The type of a value that is not None."""
        return next((t for t in get_args(self.type) if t is not NoneType), self.type)

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.name.upper().replace(".", "__")


def _keys(cls: type, prefix: str = "") -> Iterator[Key]:
    hints = get_type_hints(cls)
    for f in fields(cls):
        kind, name = hints[f.name], prefix + f.name
        if is_dataclass(kind):
            yield from _keys(kind, f"{name}.")  # type: ignore[arg-type]
        else:
            yield _key(name, kind, f, cls)


def _key(name: str, kind: Any, f: Field[Any], cls: type) -> Key:
    if cls is Limits:
        return Key(name, kind, f.default, _LIMITS[f.name], at_least=0)
    meta = f.metadata
    return Key(name, kind, f.default, meta["meaning"], meta["choices"], meta["at_least"])


KEYS: Mapping[str, Key] = {key.name: key for key in _keys(Settings)}


@dataclass(frozen=True)
class Config:
    """Resolved settings with the place that each value came from ("default" where nobody said otherwise)."""

    settings: Settings
    origins: Mapping[str, str]
    files: tuple[Path, ...] = ()

    def value(self, name: str) -> Any:
        """The value of a dotted key. Raises `ConfigError` CONFIG_UNKNOWN_KEY."""
        out: Any = self.settings
        for part in _require(name, "").name.split("."):
            out = getattr(out, part)
        return out

    def origin(self, name: str) -> str:
        return self.origins.get(_require(name, "").name, "default")

    def reading_any_text(self) -> Config:
        """These settings; where nobody named a backbone, with the default over any text but microworld's."""
        if self.origin("backbone") != "default":
            return self
        return replace(self, settings=replace(self.settings, backbone=SMOL))

    def chosen(self, section: str) -> dict[str, Any]:
        """The keys of a section (e.g. "limits") that somebody set: what goes on top of a preset's own."""
        start = f"{section}."
        return {name.removeprefix(start): self.value(name) for name in self.origins if name.startswith(start)}

    def rows(self) -> list[dict[str, Any]]:
        """One row per key for display, secrets masked: key, value, origin, meaning."""
        return [
            {
                "key": k.name,
                "value": mask(k.name, self.value(k.name)),
                "origin": self.origin(k.name),
                "meaning": k.meaning,
            }
            for k in KEYS.values()
        ]


def mask(name: str, value: Any) -> Any:
    """The value with secrets hidden: a secret key as a whole, the password within a URL."""
    if name in SECRETS and value:
        return "***"
    return masked(value) if isinstance(value, str) else value


def load_config(
    *,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Config:
    """Read all sources.

    Args:
        config: a TOML file instead of the project's jade.toml (also: JADE_CONFIG).
        overrides: "key=value" texts, as of `--set`.
        env: the environment; default `os.environ`.
        folder: where jade.toml is looked for, then in the folders above; default the working folder.

    Raises:
        ConfigError: CONFIG_FILE, CONFIG_SYNTAX, CONFIG_UNKNOWN_KEY, CONFIG_TYPE, CONFIG_VALUE, CONFIG_SET.
    """
    env = os.environ if env is None else env
    values: dict[str, tuple[Any, str]] = {}
    files = _files(config or env.get(ENV_CONFIG), env, folder or Path())
    for path in files:
        values.update(_read_file(path))
    values.update(_beside(files, folder or Path(), values))
    values.update(_read_env(env))
    values.update(_read_overrides(overrides))
    settings = _build(values)
    found = Config(settings, {name: origin for name, (_, origin) in values.items()}, tuple(files))
    return found if settings.corpus == MICROWORLD else found.reading_any_text()


def user_file(env: Mapping[str, str]) -> Path:
    """The user's own file: $XDG_CONFIG_HOME/jade/config.toml."""
    base = env.get("XDG_CONFIG_HOME") or str(Path(env.get("HOME") or "~").expanduser() / ".config")
    return Path(base) / "jade" / "config.toml"


def _files(config: str | Path | None, env: Mapping[str, str], folder: Path) -> list[Path]:
    found = [p for p in (user_file(env),) if p.is_file()]
    if config is not None:
        path = Path(config).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"the settings file {str(path)!r} is not there.", code="CONFIG_FILE", hint="--config PATH"
            )
        return [*found, path]
    return [*found, *(p for p in (project_file(folder),) if p is not None)]


def project_file(folder: Path) -> Path | None:
    """jade.toml of a folder, else of the nearest folder above it; None where there is none."""
    here = folder / PROJECT_FILE
    if here.is_file():
        return here
    above = (parent / PROJECT_FILE for parent in folder.absolute().parents)
    return next((path for path in above if path.is_file()), None)


def _beside(files: Sequence[Path], folder: Path, values: Mapping[str, tuple[Any, str]]) -> dict[str, tuple[Any, str]]:
    """Paths of a project whose file lies above: beside that file, wherever below it a command is run.

    The data folder always; of the others, which may be names as well, what is there.
    """
    project = project_file(folder)
    if project is None or project not in files or project.absolute().parent == folder.absolute():
        return {}
    name = _short(project)
    found = {"data_dir": (KEYS["data_dir"].default, f"beside {name}"), **values}
    out = {}
    for key in _PATHS:
        value, origin = found.get(key, (None, ""))
        path = project.parent / Path(value or "").expanduser()  # of an absolute path: that path
        ours = origin == f"beside {name}" or origin.startswith(f"{name}:")
        if value and ours and (key == "data_dir" or path.exists()):
            out[key] = (str(path), origin)
    return out


def _read_file(path: Path) -> dict[str, tuple[Any, str]]:
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", code="CONFIG_SYNTAX") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", code="CONFIG_FILE") from error
    out = {}
    for name, value in _flatten(table):
        origin = f"{_short(path)}:{_line_of(text, name)}"
        out[name] = (_native(_require(name, origin), value, origin), origin)
    return out


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        dotted = prefix + name
        if isinstance(value, dict) and dotted not in KEYS:
            yield from _flatten(value, f"{dotted}.") if value else [(dotted, value)]
        else:
            yield dotted, value


def _line_of(text: str, name: str) -> int:
    """The line that sets a dotted key, for messages; 1 where the file writes it in an unusual way."""
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if header := re.fullmatch(r"\[\s*([^\[\]]+?)\s*\](\s*#.*)?", line):
            section = header[1].replace(" ", "").replace('"', "") + "."
            if section == f"{name}.":
                return number
        elif (key := re.match(r"([\w.\"' -]+?)\s*=", line)) and name.startswith(
            section + key[1].replace(" ", "").strip("\"'")
        ):
            return number
    return 1


def _read_env(env: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    out = {}
    for variable in sorted(env):
        if not variable.startswith(ENV_PREFIX) or variable in _RESERVED:
            continue
        name = variable.removeprefix(ENV_PREFIX).lower().replace("__", ".")
        origin = f"environment {variable}"
        out[name] = (_parse(_require(name, origin, variable), env[variable], origin), origin)
    return out


def _read_overrides(overrides: Sequence[str]) -> dict[str, tuple[Any, str]]:
    out = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"--set {text!r} has no value.", code="CONFIG_SET", hint="--set k=3")
        origin = f"--set {name}"
        out[name] = (_parse(_require(name, origin), value.strip(), origin), origin)
    return out


def _require(name: str, origin: str, shown: str | None = None) -> Key:
    """The key of that name. `shown` is how the source writes it (a variable), so that the hint does likewise."""
    if name in KEYS:
        return KEYS[name]
    spelled = {key.variable: key for key in KEYS.values()} if shown else KEYS
    near = difflib.get_close_matches(shown or name, spelled, n=1, cutoff=0.5)
    tail = [key for key in spelled if key.rpartition("." if not shown else "_")[2] == name]
    best = (tail or near)[:1]
    where = f" ({origin})" if origin else ""
    raise ConfigError(
        f"unknown setting {shown or name!r}{where}.",
        code="CONFIG_UNKNOWN_KEY",
        hint=f"did you mean {best[0]!r}? jade config show lists all" if best else "jade config show lists all",
    )


def _native(key: Key, value: Any, origin: str) -> Any:
    """A TOML value, which has a type of its own: only an int may stand for a float."""
    if key.base is float and type(value) is int:
        value = float(value)
    if type(value) is not key.base:
        raise _wrong(key, value, origin)
    return _check(key, value, origin)


def _parse(key: Key, text: str, origin: str) -> Any:
    """A value written as text: environment or --set."""
    if key.optional and text.lower() in ("", "none", "null"):
        return None
    try:
        value = _flag(text) if key.base is bool else key.base(text)
    except ValueError:
        raise _wrong(key, text, origin) from None
    return _check(key, value, origin)


def _flag(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError(text)
    return text.lower() in _TRUE


def _check(key: Key, value: Any, origin: str) -> Any:
    if key.choices and value not in key.choices:
        near = difflib.get_close_matches(value, key.choices, n=1)
        raise ConfigError(
            f"{key.name} is {value!r} ({origin}).",
            code="CONFIG_VALUE",
            known=key.choices,
            hint=f"did you mean {near[0]!r}?" if near else f"{key.name}={key.choices[0]}",
        )
    if key.at_least is not None and (value < key.at_least or not math.isfinite(value)):
        raise ConfigError(
            f"{key.name} is {value!r} ({origin}): it must be {key.at_least:g} or more.",
            code="CONFIG_VALUE",
            hint=f"the default is {key.default!r}",
        )
    return value


def _wrong(key: Key, value: Any, origin: str) -> ConfigError:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    shown = mask(key.name, value)
    return ConfigError(
        f"{key.name} is {shown!r} ({origin}): {names[key.base]} is needed.",
        code="CONFIG_TYPE",
        hint=f"{key.meaning}; the default is {'none' if key.default is None else repr(key.default)}",
    )


def _build(values: Mapping[str, tuple[Any, str]]) -> Settings:
    settings = Settings()
    for name, (value, _) in values.items():
        section, _, leaf = name.rpartition(".")
        part = replace(getattr(settings, section), **{leaf: value}) if section else value
        settings = replace(settings, **{section or leaf: part})
    return settings


def _short(path: Path) -> str:
    """A path as a person writes it: under the working folder relative, under the home folder with ~."""
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_absolute() and path.is_relative_to(base):
            return prefix + str(path.relative_to(base))
    return str(path)
