"""Hyper-parameters of an update as KEY=VALUE texts.

Invariant: what is taken has the type that `PPOConfig` declares, and `PPOConfig` has the last word on its range; a text
that is not understood changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, get_type_hints

from jade_graph import plugins
from jade_graph.errors import ConfigError, UsageError, unknown
from jade_training.learner.ppo import Lora, PPOConfig
from jade_training.learner.rows import PLANNER

OF_ROLES = ("role_weights", "entropy_coef", "ratio")
INNER = ("lora", *OF_ROLES)
"""Hyper-parameters that have keys of their own, behind a dot: an adapter's, or a role's code."""


def overridden(config: PPOConfig, texts: Sequence[str], *, elsewhere: Mapping[str, str] | None = None) -> PPOConfig:
    """The hyper-parameters with those that the texts name: `kl_coef=0.02`, `lora.rank=8`, `entropy_coef.AG=0.01`.

    Args:
        elsewhere: hyper-parameters that something else decides, and what.

    Raises:
        UsageError: UNKNOWN_HYPERPARAMETER; BAD_HYPERPARAMETER (no value, no such key, decided elsewhere).
        ConfigError: CONFIG_VALUE, for a value of the wrong type or out of range.
    """
    known = {f.name for f in fields(PPOConfig)} - set(elsewhere or {})
    changes: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        name, dot, inner = key.partition(".")
        if elsewhere and name in elsewhere:
            raise UsageError(
                f"{name} is decided by {elsewhere[name]}.", code="BAD_HYPERPARAMETER", hint=elsewhere[name]
            )
        if name not in known:
            raise unknown("hyper-parameter", name, known, code="UNKNOWN_HYPERPARAMETER")
        if not equals or (dot and (name not in INNER or not inner)):
            raise UsageError(
                f"{text!r} is no hyper-parameter with its value.",
                code="BAD_HYPERPARAMETER",
                hint=f"{name}={getattr(config, name)}",
            )
        held = changes.get(name, getattr(config, name))
        held = asdict(held) if isinstance(held, Lora) else held
        if inner:
            _known_inner(name, inner)
        read = {**(held if isinstance(held, Mapping) else {}), inner: _read(value)} if inner else _read(value)
        changes[name] = _typed(key, name, read, config)
    found = replace(config, **changes)
    planner = [name for name in OF_ROLES if isinstance(changes.get(name), Mapping) and PLANNER in changes[name]]
    if planner and found.plan_temperature is not None:
        raise UsageError(
            f"{planner[0]}.{PLANNER} has no effect while the planner learns from comparing plans.",
            code="BAD_HYPERPARAMETER",
            hint="--ppo plan_temperature=none, and the planner is trained as the other roles are",
        )
    return found


def _known_inner(name: str, inner: str) -> None:
    """Raises `UsageError` for a key that an adapter has not, and for a role that nobody plays."""
    own = {f.name for f in fields(Lora)} if name == "lora" else set(plugins.names("jade.roles"))
    if inner not in own:
        what = "key of lora" if name == "lora" else "role"
        raise unknown(what, inner, own, code="UNKNOWN_HYPERPARAMETER")


def _read(text: str) -> Any:
    """Nothing, several values, or one; what type they are is for the declaration to say."""
    if text.lower() in ("none", "null", ""):
        return None
    return [part.strip() for part in text.split(",")] if "," in text else text


def _typed(key: str, name: str, value: Any, config: PPOConfig) -> Any:
    from pydantic import TypeAdapter, ValidationError

    if name == "lora" and isinstance(value, Mapping) and isinstance(value.get("targets"), str):
        value = {**value, "targets": [value["targets"]]}
    try:
        return TypeAdapter(get_type_hints(PPOConfig)[name]).validate_python(value)
    except ValidationError as error:
        raise ConfigError(
            f"{key} is {value!r}: {error.errors()[0]['msg'].lower()}.",
            code="CONFIG_VALUE",
            hint=f"{name} is {getattr(config, name)!r} by default",
        ) from None
