"""What a learning run has written so far, as curves.

Invariant: it reads `metrics.jsonl`, `improve.json` and the run store of a learning folder and changes nothing; a file
that is half written, or that another kind of run wrote, gives fewer curves and no error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jade_graph.studio import files

METRICS, STATE, STORE = "metrics.jsonl", "improve.json", "runs.sqlite"
_MOST_FOLDERS = 60
Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves over iterations, by name. `told`: what the height is."""

    title: str
    told: str
    curves: Mapping[str, Curve]


@dataclass(frozen=True, slots=True)
class Learned:
    """A learning run. `events` are (iteration, text) of the watchdog, `begun` (iteration, when it began, seconds since
    1970) as far as its run store knows.
    """

    folder: Path
    done: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    charts: tuple[Chart, ...] = ()
    events: tuple[tuple[int, str], ...] = ()
    begun: Curve = ()


def folders(*roots: Path) -> list[Path]:
    """Folders with metrics beneath the roots, the one that was written to last first."""
    found: dict[Path, float] = {}
    for root in roots:
        for depth in range(5):
            pattern = "/".join(["*"] * depth + [METRICS])
            for path in root.glob(pattern):
                if files.regular(path) and not any(part in (".venv", "node_modules", ".git") for part in path.parts):
                    found[path.parent] = path.stat().st_mtime
                if len(found) >= _MOST_FOLDERS:
                    break
    return sorted(found, key=lambda p: -found[p])


def read(folder: Path) -> Learned:
    """The curves of a folder; of one without metrics, none."""
    folder = folder.expanduser()
    history = _lines(folder / METRICS)
    state = _object(folder / STATE)
    evaluations = {int(k): v for k, v in (state.get("evaluations") or {}).items() if str(k).isdigit()}
    charts = [
        Chart("Reward by term", "mean over runs", _terms(history)),
        Chart("F1 by question type", "greedy, on held-out questions", _kinds(evaluations)),
        Chart("Plan entropy", "bits", _named(history, {"plan_entropy": "plan entropy", "routing_bits": "routing"})),
        Chart("Turns", "a run", _named(history, {"calls": "model calls", "retrievals": "searches"})),
        Chart("KL", "nats a token", _named(history, {"kl_old": "to the sampler", "kl_reference": "to the start"})),
        Chart("Clip fraction", "share of tokens", _named(history, {"clip_fraction": "clipped"})),
        Chart("Illegal actions by role", "share of the role's actions", _illegal(folder / STORE)),
        Chart("Advantage by role", "mean", _by_role(history, "advantage_mean")),
    ]
    return Learned(
        folder,
        len(history),
        dict(state.get("facts") or {}),
        tuple(c for c in charts if c.curves),
        _events(history),
        _begun(folder / STORE),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    if not files.regular(path):
        return out
    try:
        for line in path.read_text(encoding="utf-8").split("\n"):
            try:
                value = json.loads(line)
            except ValueError:  # the last line, while it is being written
                continue
            if isinstance(value, dict):
                out.append(value)
    except OSError:
        return []
    return out


def _object(path: Path) -> dict[str, Any]:
    if not files.regular(path):
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _at(row: Mapping[str, Any], place: int) -> float:
    return float(row.get("iteration", row.get("step", place)))


def _curve(history: Sequence[Mapping[str, Any]], name: str) -> Curve:
    rows = enumerate(history)
    return tuple((_at(r, i), float(r[name])) for i, r in rows if isinstance(r.get(name), int | float))


def _named(history: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, Curve]:
    return {label: curve for name, label in names.items() if (curve := _curve(history, name))}


def _terms(history: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    names = sorted({k for row in history for k in row if k.startswith("reward/")})
    return {**_named(history, {n: n.removeprefix("reward/") for n in names}), **_named(history, {"reward": "all"})}


def _by_role(history: Sequence[Mapping[str, Any]], what: str) -> dict[str, Curve]:
    names = sorted({k for row in history for k in row if k.endswith(f"/{what}")})
    return _named(history, {n: n.partition("/")[0] for n in names})


def _kinds(evaluations: Mapping[int, Mapping[str, Any]]) -> dict[str, Curve]:
    out: dict[str, list[tuple[float, float]]] = {}
    for at in sorted(evaluations):
        found = evaluations[at]
        for kind, value in {"all": found.get("f1"), **(found.get("f1_by_kind") or {})}.items():
            if isinstance(value, int | float):
                out.setdefault(kind, []).append((float(at), float(value)))
    return {kind: tuple(points) for kind, points in sorted(out.items(), key=lambda item: item[0] != "all")}


def _begun(store: Path) -> Curve:
    """When each iteration's rollout began."""
    if not store.is_file():
        return ()
    import sqlalchemy as sa

    from jade_graph.runs import tables

    c = tables.rollouts.c
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(store)))
    try:
        with engine.connect() as db:
            found = [(i, float(at)) for i, at in db.execute(sa.select(c.id, c.started_at).order_by(c.started_at))]
    except sa.exc.SQLAlchemyError:
        return ()
    finally:
        engine.dispose()
    return tuple((_number(name, place), at) for place, (name, at) in enumerate(found))


def _number(rollout: str, place: int) -> float:
    """The iteration in a rollout's name, else its place."""
    number = re.search(r"(\d+)$", rollout)
    return float(number[1]) if number else float(place)


_known: dict[tuple[str, str], dict[str, float]] = {}


def _illegal(store: Path) -> dict[str, Curve]:
    """Share of illegal actions by role and iteration, counted in the run store; what was counted stays counted."""
    if not store.is_file():
        return {}
    import sqlalchemy as sa

    from jade_graph.runs import tables

    t, m = tables.transitions.c, tables.rollout_runs.c
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(store)))
    try:
        with engine.connect() as db:
            rollouts = list(
                db.execute(sa.select(tables.rollouts.c.id).order_by(tables.rollouts.c.started_at)).scalars()
            )
            for i, rollout in enumerate(rollouts):
                if (str(store), rollout) in _known and i < len(rollouts) - 1:
                    continue
                bad = sa.func.sum(sa.case((t.violation.is_not(None), 1), else_=0))
                query = (
                    sa.select(t.role, sa.func.count(), bad)
                    .join_from(tables.rollout_runs, tables.transitions, t.run_id == m.run_id)
                    .where(m.rollout_id == rollout, t.finish_reason != "tool")
                    .group_by(t.role)
                )
                _known[str(store), rollout] = {role: wrong / n for role, n, wrong in db.execute(query) if n}
    except sa.exc.SQLAlchemyError:
        return {}
    finally:
        engine.dispose()
    out: dict[str, list[tuple[float, float]]] = {}
    for i, rollout in enumerate(rollouts):
        for role, share in _known.get((str(store), rollout), {}).items():
            out.setdefault(role, []).append((_number(rollout, i), share))
    return {role: tuple(points) for role, points in sorted(out.items())}


def _events(history: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, str], ...]:
    """What the watchdog would have said after each iteration, where it says something new."""
    from jade_graph import plugins

    out: list[tuple[int, str]] = []
    said: set[str] = set()
    for name in plugins.names("jade.watchdogs"):
        judge = plugins.load("jade.watchdogs", name)
        for i in range(1, len(history) + 1):
            verdict = judge(history[:i])
            if verdict is None:
                said.clear()
            elif verdict.code not in said:
                said.add(verdict.code)
                out.append((int(_at(history[i - 1], i - 1)), f"{verdict.code}: {verdict.message}"))
    return tuple(out)
