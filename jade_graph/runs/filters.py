"""Which runs are meant, as conditions on the run store's rows.

Invariant: a filter narrows; without one every run is meant.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa

from jade_graph.runs import tables
from jade_graph.runs.text import clean


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None means any. `client`: the API key, by its name, that a server recorded them for."""

    preset: str | None = None
    status: str | None = None
    question_id: str | None = None
    text: str | None = None
    plan: str | None = None
    version: str | None = None
    client: str | None = None


def conditions(where: RunFilter | None) -> list[sa.ColumnElement[bool]]:
    """For a WHERE: all of them together."""
    if where is None:
        return []
    c = tables.runs.c
    pairs = (
        (c.preset, where.preset),
        (c.status, where.status),
        (c.question_id, where.question_id),
        (c.plan, where.plan),
        (c.backbone_version, where.version),
    )
    found: list[sa.ColumnElement[bool]] = [column == value for column, value in pairs if value is not None]
    if where.client is not None:
        # Of how `serve` writes it: no text that a client sends can look like it. LIKE would not tell Ann from ann.
        told = [
            f'"served":{{"route":"{route}","client":{json.dumps(where.client, ensure_ascii=False)},"request_id":'
            for route in ("chat", "runs")
        ]
        found.append(sa.or_(*(sa.func.replace(c.metadata, text, "") != c.metadata for text in told)))
    if where.text:
        found.append(c.question.icontains(clean(where.text), autoescape=True))
    return found


__all__ = ["RunFilter", "conditions"]
