"""A narrow table beside the runs, so that a page of 100,000 runs answers at once.

Invariant: a row says what its run's row said when it was copied; `sync` copies what has changed since, and whatever
only a computation knows (F1 by the gold answers of the run) is computed once, there. Nothing here changes a run. A
store that cannot be written is looked at all the same: the table then lies in a file of its own, gone at the end.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from jade_graph.runs import tables
from jade_graph.runs.text import String, Text, clean
from jade_graph.scoring.metrics import exact_match, token_f1

_own = sa.MetaData()
rows = sa.Table(
    "studio_runs",
    _own,
    sa.Column("id", String(64), primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("status", String(16), nullable=False),
    sa.Column("started_at", sa.Float(53), nullable=False, index=True),
    sa.Column("question", Text, nullable=False),
    sa.Column("answer", Text, nullable=False),
    sa.Column("question_id", String(200), nullable=False),
    sa.Column("type", String(80), nullable=False),
    sa.Column("preset", String(80), nullable=False),
    sa.Column("version", String(200), nullable=False),
    sa.Column("plan", String(200), nullable=False),
    sa.Column("error", String(80), nullable=False),
    sa.Column("f1", sa.Float(53), index=True),
    sa.Column("em", sa.Float(53)),
    sa.Column("calls", sa.Integer, nullable=False, index=True),
    sa.Column("retrievals", sa.Integer, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("illegal", sa.Integer, nullable=False),
    sa.Column("wall_ms", sa.Float(53), nullable=False, index=True),
    sa.Column("parent", String(64), nullable=False, index=True),
    # Answers every count and group of a selection without reading the texts.
    sa.Index("studio_runs_facets", "type", "preset", "version", "plan", "status", "f1", "calls", "illegal"),
)
SORTS = ("started_at", "f1", "calls", "tokens", "illegal", "wall_ms", "question", "type", "preset", "plan", "version")
_BLOCK = 2000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs; empty means any. `score` is "right" (F1 1), "partly", "wrong" (0) or "unscored"."""

    text: str = ""
    type: str = ""
    preset: str = ""
    version: str = ""
    plan: str = ""
    status: str = ""
    score: str = ""
    calls: str = ""
    illegal: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        """From a page's query string; unknown names are left out."""
        return cls(**{name: str(query[name])[:300] for name in cls.__slots__ if query.get(name)})

    def as_query(self) -> dict[str, str]:
        return {name: value for name in self.__slots__ if (value := getattr(self, name))}


@dataclass(frozen=True, slots=True)
class Summary:
    """Of a selection: `plans` and `types` are (name, runs, mean F1 or None), largest first; `scores` counts by F1."""

    runs: int
    failed: int
    scored: int
    f1: float | None
    calls: float | None
    plans: tuple[tuple[str, int, float | None], ...]
    types: tuple[tuple[str, int, float | None], ...]
    scores: tuple[int, int, int]


class Index:
    """The table of one store's runs. `apart`: it lies beside the store, which cannot be written."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = self._runs = engine
        self._lock = threading.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        try:
            known = sa.inspect(engine)
            if known.has_table(rows.name) and {c["name"] for c in known.get_columns(rows.name)} != set(rows.c.keys()):
                rows.drop(engine)  # of an older studio: it is only a copy, and is made again
            _own.create_all(engine)
            with engine.begin() as db:
                db.execute(rows.delete().where(rows.c.id == ""))  # none: asks whether it may be written
        except sa.exc.SQLAlchemyError:
            self._folder = tempfile.TemporaryDirectory(prefix="jade-studio-")
            own = Path(self._folder.name) / "index.db"
            self._engine = sa.create_engine(sa.URL.create("sqlite", database=str(own)))
            _own.create_all(self._engine)

    @property
    def apart(self) -> bool:
        return self._folder is not None

    def close(self) -> None:
        """Remove a table that lies apart. The store stays open."""
        if self._folder is not None:
            self._engine.dispose()
            self._folder.cleanup()

    def sync(self, blocks: int | None = None) -> int:
        """Copy what is new or has changed, at most so many blocks of it; returns how many runs.

        What has been copied is seen at once: a first copy of very many runs does not hold up who looks.
        """
        copied = 0
        while blocks is None or blocks > 0:
            with self._lock:
                now = self._block()
            copied += now
            if now < _BLOCK:
                break
            blocks = None if blocks is None else blocks - 1
        return copied

    def _block(self) -> int:
        if self.apart:
            return self._block_apart()
        r = tables.runs.c
        stale = sa.or_(rows.c.id.is_(None), rows.c.status != r.status, rows.c.attempt != r.attempt)
        joined = tables.runs.outerjoin(rows, rows.c.id == r.id)
        query = sa.select(tables.runs).select_from(joined).where(stale).order_by(r.started_at.desc()).limit(_BLOCK)
        with self._engine.begin() as db:
            found = [_row(dict(row)) for row in db.execute(query).mappings()]
            ids = [row["id"] for row in found]
            for start in range(0, len(ids), 500):
                db.execute(rows.delete().where(rows.c.id.in_(ids[start : start + 500])))
            if found:
                db.execute(rows.insert(), found)
        return len(found)

    def _block_apart(self) -> int:
        """The same over two databases: what is known is compared here."""
        r = tables.runs.c
        with self._engine.connect() as db:
            known = {i: rest for i, *rest in db.execute(sa.select(rows.c.id, rows.c.status, rows.c.attempt))}
        with self._runs.connect() as db:
            listed = db.execute(sa.select(r.id, r.status, r.attempt).order_by(r.started_at.desc()))
            ids = [i for i, *rest in listed if known.get(i) != rest][:_BLOCK]
            found = []
            for start in range(0, len(ids), 500):
                query = sa.select(tables.runs).where(r.id.in_(ids[start : start + 500]))
                found += [_row(dict(row)) for row in db.execute(query).mappings()]
        with self._engine.begin() as db:
            for start in range(0, len(ids), 500):
                db.execute(rows.delete().where(rows.c.id.in_(ids[start : start + 500])))
            if found:
                db.execute(rows.insert(), found)
        return len(found)

    def page(
        self, where: Filter, *, sort: str = "started_at", descending: bool = True, limit: int = 25, offset: int = 0
    ) -> list[dict[str, Any]]:
        column = rows.c[sort if sort in SORTS else "started_at"]
        order = column.desc().nulls_last() if descending else column.asc().nulls_last()
        if not column.nullable:
            order = column.desc() if descending else column.asc()
        query = sa.select(rows).where(*_conditions(where)).order_by(order, rows.c.id).limit(limit).offset(offset)
        with self._engine.connect() as db:
            return [dict(row) for row in db.execute(query).mappings()]

    def holds(self) -> bool:
        """Whether there is any run."""
        with self._engine.connect() as db:
            return db.execute(sa.select(rows.c.id).limit(1)).first() is not None

    def count(self, where: Filter) -> int:
        with self._engine.connect() as db:
            query = sa.select(sa.func.count()).select_from(rows).where(*_conditions(where))
            return int(db.execute(query).scalar_one())

    def summary(self, where: Filter) -> Summary:
        """Everything about a selection from one grouped query."""
        failed, right, wrong = (
            sa.func.sum(sa.case((condition, 1), else_=0))
            for condition in (rows.c.status == "failed", rows.c.f1 >= 1.0, rows.c.f1 == 0.0)
        )
        query = (
            sa.select(
                rows.c.plan, rows.c.type, sa.func.count(), failed, sa.func.count(rows.c.f1), sa.func.sum(rows.c.f1),
                sa.func.sum(rows.c.calls), right, wrong,
            )
            .where(*_conditions(where))
            .group_by(rows.c.plan, rows.c.type)
        )  # fmt: skip
        with self._engine.connect() as db:
            found = [tuple(row) for row in db.execute(query)]
        n = sum(row[2] for row in found)
        scored = sum(row[4] for row in found)
        total = sum(row[5] or 0.0 for row in found)
        good, bad = sum(row[7] for row in found), sum(row[8] for row in found)
        return Summary(
            runs=n,
            failed=sum(row[3] for row in found),
            scored=scored,
            f1=total / scored if scored else None,
            calls=sum(row[6] for row in found) / n if n else None,
            plans=_grouped(found, 0),
            types=_grouped(found, 1),
            scores=(good, scored - good - bad, bad),
        )

    def choices(self) -> dict[str, list[str]]:
        """The values that a filter can take, by its name."""
        out = {}
        with self._engine.connect() as db:
            for name in ("type", "preset", "version", "plan"):
                column = rows.c[name]
                query = sa.select(column).where(column != "").distinct().order_by(column).limit(200)
                out[name] = list(db.execute(query).scalars())
        return out

    def arms(self) -> list[tuple[str, str, int]]:
        """(key, name, runs) of every method with a version, those with most runs first; a key is "PRESET @ VERSION"."""
        c = rows.c
        query = (
            sa.select(c.preset, c.version, sa.func.count().label("n"))
            .where(c.parent == "")
            .group_by(c.preset, c.version)
        )
        with self._engine.connect() as db:
            found = list(db.execute(query.order_by(sa.desc("n"), c.preset, c.version).limit(200)))
        return [(f"{preset} @ {version}", f"{preset} @ {version}", n) for preset, version, n in found]

    def questions(self, limit: int) -> list[str]:
        """The newest questions, each once."""
        newest = sa.select(rows.c.question).order_by(rows.c.started_at.desc()).limit(200)
        with self._engine.connect() as db:
            return list(dict.fromkeys(db.execute(newest).scalars()))[:limit]

    def forks(self, run_id: str) -> list[str]:
        """Runs that were forked from this one, the oldest first."""
        query = sa.select(rows.c.id).where(rows.c.parent == run_id).order_by(rows.c.started_at)
        with self._engine.connect() as db:
            return list(db.execute(query).scalars())


def _row(run: Mapping[str, Any]) -> dict[str, Any]:
    about = json.loads(run["metadata"])
    golds = about.get("answers")
    golds = [golds] if isinstance(golds, str) else golds
    ended = run["status"] != "running"
    return {
        "id": run["id"],
        "attempt": run["attempt"],
        "status": run["status"],
        "started_at": run["started_at"],
        "question": run["question"],
        "answer": run["answer"],
        "question_id": run["question_id"],
        "type": str(about.get("type") or "")[:80],
        "preset": run["preset"],
        "version": run["backbone_version"],
        "plan": run["plan"],
        "error": run["error"] or "",
        "f1": token_f1(run["answer"], golds) if ended and golds else None,
        "em": exact_match(run["answer"], golds) if ended and golds else None,
        "calls": run["calls"],
        "retrievals": run["retrievals"],
        "tokens": run["prompt_tokens"] + run["action_tokens"],
        "illegal": run["illegal_actions"],
        "wall_ms": run["wall_ms"],
        "parent": str(about.get("parent") or "")[:64],
    }


def _conditions(where: Filter) -> list[sa.ColumnElement[bool]]:
    c = rows.c
    out: list[sa.ColumnElement[bool]] = [
        c[name] == value for name in ("type", "preset", "version", "plan", "status") if (value := getattr(where, name))
    ]
    if where.text:
        text = clean(where.text)
        found = (c.question.icontains(text, autoescape=True), c.answer.icontains(text, autoescape=True))
        out.append(sa.or_(*found, c.id.startswith(text, autoescape=True)))
    scores = {"right": c.f1 >= 1.0, "wrong": c.f1 == 0.0, "partly": sa.and_(c.f1 > 0.0, c.f1 < 1.0)}
    if where.score:
        out.append(scores.get(where.score, c.f1.is_(None)))
    if where.calls.isdigit():
        out.append(c.calls >= int(where.calls))
    if where.illegal:
        out.append(c.illegal > 0 if where.illegal == "some" else c.illegal == 0)
    return out


def _grouped(found: list[Any], at: int) -> tuple[tuple[str, int, float | None], ...]:
    groups: dict[str, list[float]] = {}
    for row in found:
        group = groups.setdefault(row[at] or "none", [0, 0, 0.0])
        group[0] += row[2]
        group[1] += row[4]
        group[2] += row[5] or 0.0
    listed = [(name, int(n), total / scored if scored else None) for name, (n, scored, total) in groups.items()]
    return tuple(sorted(listed, key=lambda g: (-g[1], g[0])))
