"""A trial: versions of the backbone answer the same held-out questions, on this machine, in this hour.

Invariant: every version gets the same questions, seed, limits, corpus and concurrency, in alternating blocks, so that
what else the machine does falls on all of them. Results that were measured before are taken only where their manifests
agree and name the weights that they are said to be of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from jade_graph.assembly import open_backbone, open_parts, open_retriever_for
from jade_graph.data import Dataset, load_dataset
from jade_graph.errors import UsageError
from jade_graph.gate.policy import Policy
from jade_graph.registry import ModelVersion, Registry
from jade_graph.scoring.evaluation import Row, evaluate, evaluation_manifest, require_comparable
from jade_graph.scoring.keeping import load_rows
from jade_graph.settings.config import Config
from jade_graph.sync import run_sync
from jade_graph.types import Backbone, Retriever, Run, Sampling
from jade_graph.workflow.engine import Engine

_BLOCKS, _SHORTEST = 4, 8


class Tick(Protocol):
    """Called with the runs that are done and all."""

    def __call__(self, done: int, total: int | None = None, label: str | None = None) -> None: ...


def silent(done: int, total: int | None = None, label: str | None = None) -> None:
    """A tick that nobody sees."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Rows and manifests of versions that answered the same questions, by version number.

    `dataset` names the questions; `same_machine`: whether latencies may be compared.
    """

    dataset: str
    rows: Mapping[int, Sequence[Row]]
    manifests: Mapping[int, Mapping[str, Any]]
    same_machine: bool = True


def measure(
    registry: Registry,
    versions: Sequence[ModelVersion],
    config: Config,
    policy: Policy | None = None,
    *,
    data: Dataset | None = None,
    retriever: Retriever | None = None,
    limit: int | None = None,
    decides: bool = False,
    record: bool = True,
    tick: Tick = silent,
) -> Trial:
    """Let versions answer the policy's questions, with the settings' preset, corpus, limits and sampling.

    All of them are in memory at once.

    Args:
        data, retriever: instead of the policy's data set and what it is asked over.
        limit: only the first so many questions.
        decides: refuse too few questions for the policy's verdict before a version is opened.
        record: write the runs to the store, so that they can be looked at.

    Raises:
        UsageError: GATE_FEW_QUESTIONS. What fetching and loading a version raise; DataError for the data set.
    """
    policy = policy or Policy()
    config = replace(config, settings=replace(config.settings, seed=policy.questions.seed))
    data = data or load_dataset(policy.questions.dataset, limit=limit)
    if decides and len(data.questions) < policy.questions.minimum:
        raise _few(data, policy, limit)
    searched = retriever or open_retriever_for(config, data)
    rows: dict[int, list[Row]] = {version.number: [] for version in versions}
    manifests: dict[int, dict[str, Any]] = {}
    total, done = len(data.questions) * len(versions), 0

    def count(run: Run) -> None:
        nonlocal done
        del run
        done += 1
        tick(done, total)

    with ExitStack() as opened:
        graphs = {}
        for version in versions:
            _, folder = registry.fetch(version.number)
            backbone = open_backbone(config.settings, str(folder))
            opened.callback(partial(_closed, backbone))
            parts = open_parts(config, {"backbone": backbone, "retriever": searched}, record=record)
            opened.callback(parts.close)
            graph = graphs[version.number] = Engine(**parts.arguments)
            facts = evaluation_manifest(config, data, searched, limit=limit)
            manifests[version.number] = facts | {
                "backbone": version.uri,
                "backbone_version": backbone.version,
                "graph_hash": graph.graph_hash,
                "concurrency": policy.questions.concurrency,
            }
        for graph in graphs.values():
            run_sync(_warm(graph.backbone))
        seed, concurrency = policy.questions.seed, policy.questions.concurrency
        for i, block in enumerate(_blocks(data.questions)):
            order = list(graphs.items())
            # A B, B A, ..: a machine that slows down or speeds up favours neither.
            for number, graph in order if i % 2 == 0 else reversed(order):
                found = evaluate(graph, block, seed=seed, concurrency=concurrency, progress=count)
                rows[number] += run_sync(found)
    return Trial(data.name, rows, manifests)


def _closed(backbone: Backbone) -> None:
    run_sync(backbone.aclose())


async def _warm(backbone: Backbone) -> None:
    """One token, so that nobody's first run pays for what is set up once."""
    prompt = backbone.encode_text("a") or [backbone.eos_token_id]
    await backbone.generate(prompt, Sampling(temperature=0.0, max_new_tokens=1))


def _few(data: Dataset, policy: Policy, limit: int | None) -> UsageError:
    n, least = len(data.questions), policy.questions.minimum
    return UsageError(
        f"{data.name!r} has {n} questions{'' if limit is None else f' within --limit {limit}'}, and the gate decides "
        f"on {least} or more: nothing was asked.",
        code="GATE_FEW_QUESTIONS",
        hint="--dataset with more, a larger --limit, or [questions] minimum in gate.toml",
    )


def _blocks(questions: Sequence[Any]) -> list[Sequence[Any]]:
    """Some blocks of like size, an even number where there are enough questions."""
    n = next((n for n in (_BLOCKS, 2) if len(questions) >= n * _SHORTEST), 1)
    size = -(-len(questions) // n)
    return [questions[at : at + size] for at in range(0, len(questions), size)]


def load_evidence(files: Mapping[int, Path], versions: Sequence[ModelVersion]) -> Trial:
    """Saved evaluations (`jade eval --out`) of versions, by number.

    Raises:
        DataError: EVAL_FILE. UsageError: MANIFEST_DIFFERS, EVIDENCE_OTHER_MODEL.
    """
    rows: dict[int, Sequence[Row]] = {}
    manifests: dict[int, Mapping[str, Any]] = {}
    for version in versions:
        path = files[version.number]
        rows[version.number], manifests[version.number] = load_rows(path)
        found = str(manifests[version.number].get("backbone_version", "")).rpartition("@")[2]
        if found not in version.hashes:
            raise UsageError(
                f"{str(path)!r} was measured on the weights {found or '?'}, and version {version.number} has "
                f"{version.weights}.",
                code="EVIDENCE_OTHER_MODEL",
                hint=f"jade eval DATASET --backbone {version.uri} --out {path.name}",
            )
    first, *others = (manifests[version.number] for version in versions)
    same = True
    for other in others:
        require_comparable(other, first)
        same = same and other.get("hardware") == first.get("hardware")
    return Trial(str(first.get("dataset", "")), rows, manifests, same)
