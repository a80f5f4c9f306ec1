"""Language models behind one protocol: local (transformers), served (vLLM), scripted.

Invariant: a backbone is named by one string, `SCHEME:REST` or a plain model name; schemes are found by entry point,
and nothing heavy is imported before a backbone of its kind is asked for.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, cast

from jade_graph import plugins
from jade_graph.backbones.folders import BUNDLED
from jade_graph.errors import BackboneError, UsageError
from jade_graph.types import Backbone

GROUP = "jade.backbones"
TINY = BUNDLED["tiny"]
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_+.-]+):(.*)", re.DOTALL)


def load_backbone(spec: str, **options: Any) -> Backbone:
    """The backbone that `spec` names.

    Args:
        spec: "tiny", "tiny-hasty" or "tiny-ask" (bundled), a local folder, a hub id, or "SCHEME:REST" with a scheme of
            the entry point group "jade.backbones": "hf:NAME", "openai:http://host/v1#MODEL", "scripted:MODULE:POLICY"
            are stock.
        options: keyword arguments of that kind's factory, e.g. device, dtype, max_context, profile for "hf".

    Raises:
        UsageError: UNKNOWN_BACKBONE (scheme), BACKBONE_OPTION (a keyword argument the factory does not take).
        BackboneError: BACKBONE_TINY_MISSING, or whatever the factory raises.
    """
    scheme, rest = _split(spec)
    factory = plugins.load(GROUP, scheme)
    accepted = _accepted(factory)
    for name in options:
        if accepted and name not in accepted:
            raise UsageError(
                f"the backbone {spec!r} takes no option {name!r}.", code="BACKBONE_OPTION", known=sorted(accepted)
            )
    return cast("Backbone", factory(rest, **options))


def _split(spec: str) -> tuple[str, str]:
    if spec in BUNDLED:
        if not (BUNDLED[spec] / "config.json").is_file():
            raise BackboneError(
                f"the bundled model {spec!r} is not in this installation.",
                code="BACKBONE_TINY_MISSING",
                hint="jade microworld pretrain",
            )
        return "hf", str(BUNDLED[spec])
    match = _SCHEME.fullmatch(spec)
    # "C:\models" is a path, and so is a folder whose name has a colon.
    if match is None or Path(spec).exists():
        return "hf", spec
    return match[1], match[2]


def _accepted(factory: Any) -> set[str]:
    """Keyword arguments of a factory; empty where it takes any."""
    parameters = inspect.signature(factory).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return set()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


__all__ = ["GROUP", "TINY", "load_backbone"]
