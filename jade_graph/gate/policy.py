"""The gate's policy: what a challenger must show to become champion.

Invariant: every rule is one key with a default and a one-line meaning; a policy file may name nothing else, and a value
that makes no sense is an error that says which and why.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from jade_graph.errors import ConfigError, unknown
from jade_graph.registry.candidates import RISE

POLICY_FILE = "gate.toml"
PEEKING = ("spend", "ignore")
METRICS = ("f1", "em", "f1_style_stripped", "answer_recall", "support_recall")


def rule(default: Any, meaning: str, *, low: float | None = None, high: float | None = None) -> Any:
    """A key with its meaning and its range (both ends allowed)."""
    return field(default=default, metadata={"meaning": meaning, "low": low, "high": high})


@dataclass(frozen=True, slots=True)
class Questions:
    dataset: str = rule("microworld:test?n=400", "held-out questions that both versions answer")
    minimum: int = rule(50, "fewer scored questions decide nothing", low=2)
    seed: int = rule(0, "of sampling and resampling", low=0)
    concurrency: int = rule(64, "runs at once; the same for both versions", low=1)


@dataclass(frozen=True, slots=True)
class Gain:
    metric: str = rule("f1", "figure that must grow: " + ", ".join(METRICS))
    least: float = rule(0.0, "the gain's confidence interval must lie above this", low=0, high=1)
    confidence: float = rule(0.95, "of that interval (two-sided)", low=0.5, high=0.9999)
    peeking: str = rule(
        "spend",
        "'spend': a further try against one champion needs more confidence, so that all tries "
        "together promote an equal version with at most 1 - confidence; 'ignore': each try as the first",
    )
    resamples: int = rule(10_000, "bootstrap samples and sign patterns", low=1000)
    worth: float = rule(0.05, "smallest gain worth finding: how many questions that takes is told", low=0.001, high=1)
    power: float = rule(0.8, "probability with which that many questions would show a gain", low=0.5, high=0.999)


@dataclass(frozen=True, slots=True)
class Types:
    confidence: float = rule(0.95, "that no type of questions is called worse by chance, over all types (Holm)",
                             low=0.5, high=0.9999)  # fmt: skip
    minimum: int = rule(10, "types with fewer questions are shown, not judged", low=2)


@dataclass(frozen=True, slots=True)
class Illegal:
    most: float = rule(0.05, "most illegal actions per action", low=0, high=1)
    rise: float = rule(RISE, "most by which they may rise above the champion's", low=0, high=1)


@dataclass(frozen=True, slots=True)
class Failed:
    most: float = rule(0.02, "most failed runs per run", low=0, high=1)


@dataclass(frozen=True, slots=True)
class Cost:
    tokens: float = rule(3.0, "most tokens per question, as a multiple of the champion's", low=0)
    calls: float = rule(3.0, "most model calls per question, as a multiple of the champion's", low=0)


@dataclass(frozen=True, slots=True)
class Latency:
    quantile: float = rule(0.95, "of the runs' wall time", low=0, high=1)
    ratio: float = rule(3.0, "most, as a multiple of the champion's; 0: not judged", low=0)
    most_ms: float = rule(0.0, "most milliseconds; 0: any", low=0)


@dataclass(frozen=True, slots=True)
class First:
    least: float = rule(0.0, "without a champion: the metric's confidence interval must lie above this", low=0, high=1)


@dataclass(frozen=True, slots=True)
class Look:
    pairs: int = rule(
        0, "judgements that are looked into in both versions; a report, which refuses nothing; 0: none", low=0
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules. `Policy()` is the default; `Policy.load` reads a TOML file."""

    questions: Questions = Questions()
    gain: Gain = Gain()
    types: Types = Types()
    illegal: Illegal = Illegal()
    failed: Failed = Failed()
    cost: Cost = Cost()
    latency: Latency = Latency()
    first: First = First()
    look: Look = Look()

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str = "the policy") -> Policy:
        """The default with these values on top: `{"gain": {"metric": "em"}}`.

        Raises:
            UsageError: GATE_POLICY_KEY. ConfigError: GATE_POLICY.
        """
        sections: dict[str, Any] = {f.name: f.default for f in fields(cls)}
        made: dict[str, Any] = {}
        for name, part in values.items():
            if name not in sections:
                raise unknown(f"section of {where}", name, sections, code="GATE_POLICY_KEY")
            if not isinstance(part, Mapping):
                raise ConfigError(f"{name} in {where} is {part!r}, no section.", code="GATE_POLICY", hint=f"[{name}]")
            kind: Any = type(sections[name])
            known = {f.name: f for f in fields(kind)}
            for key, value in part.items():
                if key not in known:
                    raise unknown(f"rule of [{name}] in {where}", key, known, code="GATE_POLICY_KEY")
                _check(f"{name}.{key}", value, get_type_hints(kind)[key], known[key].metadata, where)
            made[name] = kind(**part)
        policy = cls(**made)
        if policy.gain.metric not in METRICS:
            raise ConfigError(
                f"gain.metric in {where} is {policy.gain.metric!r}.", code="GATE_POLICY", known=METRICS, hint="f1"
            )
        if policy.gain.peeking not in PEEKING:
            raise ConfigError(
                f"gain.peeking in {where} is {policy.gain.peeking!r}.", code="GATE_POLICY", known=PEEKING, hint="spend"
            )
        return policy

    @classmethod
    def load(cls, path: Path | None = None) -> Policy:
        """Read a policy file; None: ./gate.toml, else the defaults.

        Raises:
            ConfigError: GATE_POLICY. UsageError: GATE_POLICY_KEY.
        """
        if path is None:
            path = Path(POLICY_FILE)
            if not path.is_file():
                return cls()
        try:
            return cls.of(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the policy {str(path)!r} cannot be read: {error}",
                code="GATE_POLICY",
                hint="jade promote --show-policy prints one to begin with",
            ) from error

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def toml(self) -> str:
        """The policy as a file, with the meaning of every rule."""
        lines = ["# When a challenger becomes champion. jade promote reads ./gate.toml or --policy FILE."]
        for section, key, value, meaning in self._rows():
            if f"[{section}]" not in lines:
                lines += ["", f"[{section}]"]
            shown = f'"{value}"' if isinstance(value, str) else str(value)
            lines.append(f"{key} = {shown}  # {meaning}")
        return "\n".join(lines) + "\n"

    def _rows(self) -> Iterator[tuple[str, str, Any, str]]:
        for section in fields(self):
            part = getattr(self, section.name)
            for f in fields(part):
                yield section.name, f.name, getattr(part, f.name), f.metadata["meaning"]


def _check(name: str, value: Any, kind: Any, limits: Mapping[str, Any], where: str) -> None:
    wanted = kind if isinstance(kind, type) else get_args(kind)[0]
    fits = isinstance(value, int | float) and not isinstance(value, bool) if wanted is float else type(value) is wanted
    low, high = limits["low"], limits["high"]
    if fits and (low is None or value >= low) and (high is None or value <= high):
        return
    names = {str: "a text", int: "a whole number", float: "a number"}
    span = "" if low is None else f" from {low:g}" + ("" if high is None else f" to {high:g}")
    raise ConfigError(
        f"{name} in {where} is {value!r}: {names[wanted]}{span} is needed.", code="GATE_POLICY", hint=limits["meaning"]
    )
