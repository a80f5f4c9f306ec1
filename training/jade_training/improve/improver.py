"""The loop: rollout -> export -> train -> evaluate, resumable at every boundary.

Invariant: an iteration counts when its checkpoint and metrics are on disk; one that was cut off is taken up from its
recorded runs: none is run again, and its update is the same to the last bit. Every rollout is of one backbone version,
which names the run's weights: `<name>-<iteration>`. Weights that a collapse made are never called good.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph import plugins
from jade_graph.backbones.codec import Codec
from jade_graph.backbones.folders import content_version
from jade_graph.backbones.hf import HFBackbone
from jade_graph.errors import ConfigError, UsageError
from jade_graph.registry.candidates import best_of
from jade_graph.rollouts.collecting import collect
from jade_graph.runs.export import export_runs, read_export
from jade_graph.runs.store import RunStore
from jade_graph.scoring.evaluation import evaluate
from jade_graph.scoring.keeping import save_rows
from jade_graph.scoring.rewards import GROUP, RewardSpec, RunReward, Scored, score_run
from jade_graph.settings.manifest import manifest
from jade_graph.types import Preset, Question, Retriever, Run, Sampling
from jade_graph.workflow.engine import Engine
from jade_graph.workflow.parts import limits_of
from jade_training.improve import compressing
from jade_training.improve.figures import evaluation_figures, performance, rollout_figures
from jade_training.improve.settings import ImproveSettings, writes_plans
from jade_training.improve.watchdog import Thresholds, Verdict, judge
from jade_training.learner.adapters import served
from jade_training.learner.saving import drop_checkpoint
from jade_training.learner.trainer import PPOTrainer
from jade_training.merging.curves import Window
from jade_training.merging.window import merged_window, needed

if TYPE_CHECKING:
    from jade_training.learner.logits import Pair

STATE, METRICS = "improve.json", "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class Data:
    """Questions with where to search for their answers. `name` is recorded."""

    name: str
    questions: Sequence[Question]
    retriever: Retriever | None


@dataclass(slots=True)
class Progress:
    """What is going on: `done` of `of` units of a `phase` ("rollout", "train", "evaluate") of an iteration."""

    iteration: int
    iterations: int
    phase: str
    done: int = 0
    of: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Improved:
    """What a learning run came to. `best` and `last` are Hugging Face folders; `stopped` says why it ended early."""

    folder: Path
    iterations: int
    history: list[dict[str, Any]]
    evaluations: dict[int, dict[str, Any]]
    best: Path
    best_iteration: int
    last: Path
    stopped: Verdict | None
    seconds: float


class Improver:
    """One learning run in a folder. `run` goes on from wherever an earlier process stopped.

    Args:
        out: its folder: runs.sqlite, iterations/NNN (export, checkpoint, metrics), models/, improve.json.
        model: a Hugging Face folder, the start; it also serves the roles that are not trained.
        train, held_out: questions to learn from, and to be measured on.
        replay, bank: demonstrations and prompts that hold roles which the policy seldom visits (see `PPOTrainer`).
        rewards: functions of your own by the names that the settings give them (`outcome`, `extra`).
        thresholds: of the watchdog.
        keep: checkpoints that are kept beside the best and the last.

    Raises:
        ConfigError: IMPROVE_CHANGED, the folder holds a run with other settings, data or start.
        UsageError: UNKNOWN_REWARD, REWARD_SPEC.
    """

    def __init__(
        self,
        out: Path | str,
        model: Path | str,
        train: Data,
        held_out: Data,
        settings: ImproveSettings | None = None,
        *,
        preset: Preset | None = None,
        replay: Sequence[Pair] = (),
        bank: Sequence[Pair] = (),
        rewards: Mapping[str, RunReward] | None = None,
        thresholds: Thresholds | None = None,
        progress: Callable[[Progress], None] | None = None,
        keep: int = 1,
    ) -> None:
        self.out, self.source = Path(out), Path(model)
        self.train, self.held_out = train, held_out
        self.settings = settings or ImproveSettings()
        self.preset: Preset = preset or plugins.load("jade.presets", self.settings.preset)
        if self.preset.trainable is not None and not self.preset.trainable:
            raise UsageError(
                f"the preset {self.preset.name!r} trains no role.", code="NOTHING_TO_TRAIN", hint="--preset jade"
            )
        if not train.questions or not held_out.questions:
            raise UsageError("there are no questions to learn from.", code="DATASET_EMPTY", hint="a larger --limit")
        self.replay, self.bank, self.rewards = replay, bank, dict(rewards or {})
        spec = self.settings.rewards(self.preset, 0)  # what cannot be a reward is said before anything is run
        for name in {spec.outcome, *spec.extra} - set(self.rewards):
            plugins.load(GROUP, name)
        compressing.checked(self.settings.compress, self.preset)
        self.thresholds, self.tell, self.keep = thresholds, progress or (lambda _: None), keep
        self.window = None if self.settings.merge is None else Window.parse(self.settings.merge)
        self.chosen: Any = None  # what was evaluated last: the model in training, or the merge that did better
        self.out.mkdir(parents=True, exist_ok=True)
        self.facts = {
            "settings": self.settings.as_dict(),
            "preset": self.preset.name,
            "trainable": sorted(self.preset.trainable) if self.preset.trainable is not None else None,
            "plan": self.preset.plan,
            "credit": self.settings.credit or self.preset.credit,
            "model": content_version(self.source),
            "train": train.name,
            "held_out": held_out.name,
        }
        if replay and not train.name.startswith("microworld"):
            self.facts["replay"] = len(replay)
        self.done, self.history, self.evaluations = self._resume()

    # --- the loop -----------------------------------------------------------------------------------------------------
    async def run(self) -> Improved:
        """Iterate to the end, or until the watchdog stops it."""
        began = time.monotonic()
        s = self.settings
        roles = compressing.learners(self.preset, s.compress)
        trainer = PPOTrainer(self.source, s.ppo_of(self.preset), roles=roles, replay=self.replay, bank=self.bank)
        if self.done:
            trainer.load_checkpoint(self._iteration(self.done - 1) / "checkpoint")
        codec = Codec.from_folder(self.source)
        alone = compressing.all_learn(self.preset, s.compress)
        frozen = None if alone else HFBackbone.load(self.source, dtype="float32")
        verdict = judge(self.history, self.thresholds)
        try:
            with RunStore(self.out / "runs.sqlite") as store:
                if 0 not in self.evaluations and not self.done:
                    await self._evaluate(trainer, codec, frozen, 0)
                while self.done < s.iterations and verdict is None:
                    i = self.done
                    runs = await self._rollout(trainer, codec, frozen, store, i)
                    metrics = self._train(trainer, runs, i)
                    if (i + 1) % s.evaluate_every == 0 or i + 1 == s.iterations:
                        await self._evaluate(trainer, codec, frozen, i + 1)
                    self._commit(trainer, i, metrics)
                    verdict = judge(self.history, self.thresholds)
        finally:
            if frozen is not None:
                await frozen.aclose()
        return self._ended(trainer, verdict, time.monotonic() - began)

    async def _rollout(
        self, trainer: PPOTrainer, codec: Codec, frozen: HFBackbone | None, store: RunStore, i: int
    ) -> list[Run]:
        s = self.settings
        asked = self._questions(i)
        total, done = len(asked) * s.runs_per_question, 0

        def count(run: Run) -> None:
            nonlocal done
            del run
            done += 1
            self.tell(Progress(i, s.iterations, "rollout", done, total))

        backbone = self._served(trainer.model, codec, i)
        graph = self._graph(backbone, frozen, self.train.retriever, store, compress=compressing.how(s.compress))
        try:
            rollout = await collect(
                graph,
                asked,
                rollout_id=f"{self.out.name}-{i:03d}",
                runs_per_question=s.runs_per_question,
                seed=s.seed,
                concurrency=s.concurrency,
                sampling={"temperature": s.temperature},
                explore=s.explore if writes_plans(self.preset) else 0.0,
                runs_per_plan=s.runs_per_plan if self._branches() else 1,
                progress=count,
                store=store,
                about=s.paid(self.preset, i),
            )
        finally:
            await backbone.aclose()
        folder = self._iteration(i) / "export"
        export_runs(rollout, folder, self._manifest(i, graph), force=True)
        return read_export(folder).runs

    def _train(self, trainer: PPOTrainer, runs: Sequence[Run], i: int) -> dict[str, Any]:
        self.tell(Progress(i, self.settings.iterations, "train", 0, len(runs)))
        by_id = {q.id: q for q in self._questions(i)}
        spec = self.settings.rewards(self.preset, i)
        runs = sorted(runs, key=lambda r: r.id)
        scores = {run.id: score_run(run, by_id[run.question_id], spec, rewards=self.rewards) for run in runs}
        scored, more = compressing.scored(self.settings.compress, runs, scores)
        metrics: dict[str, Any] = trainer.update(runs, scored, version=self._version(i), step=i)
        score = performance(scored.values(), spec.outcome)
        return {
            "iteration": i,
            **metrics,
            "score": score,
            **rollout_figures(runs, by_id),
            "call_cost": spec.call_cost,
            **more,
        }

    async def _evaluate(self, trainer: PPOTrainer, codec: Codec, frozen: HFBackbone | None, at: int) -> None:
        """Measure the weights; of a run that merges, the merge of its last ones too: the better of the two counts."""
        self.evaluations[at] = await self._measured(trainer.model, codec, frozen, at, f"{at:03d}")
        self.chosen = trainer.model
        merge = None
        if self.window is not None and at:
            merge = merged_window(trainer.model, self.window, self.out / "iterations", at - 1)
        if merge is None:
            return
        found = {0: self.evaluations[at], 1: await self._measured(merge, codec, frozen, at, f"{at:03d}-merged")}
        better = best_of(found) or 0
        self.evaluations[at] = {**found[better], "merged": bool(better), "beside": found[1 - better]["score"]}
        if better:
            self.chosen = merge
            rows = self.out / "evaluations"
            (rows / f"{at:03d}.jsonl").replace(rows / f"{at:03d}-last.jsonl")
            (rows / f"{at:03d}-merged.jsonl").replace(rows / f"{at:03d}.jsonl")

    async def _measured(
        self, model: Any, codec: Codec, frozen: HFBackbone | None, at: int, name: str
    ) -> dict[str, Any]:
        backbone = self._served(model, codec, at)
        graph = self._graph(backbone, frozen, self.held_out.retriever, None, greedy=True)
        questions = {q.id: q for q in self.held_out.questions}
        spec = RewardSpec(outcome=self.settings.outcome)
        scored: dict[str, Scored] = {}
        lengths: list[int] = []

        def count(run: Run) -> None:
            lengths.append(compressing.length(run, self.preset, codec) if self.settings.compress else 0)
            scored[run.question_id] = score_run(run, questions[run.question_id], spec, rewards=self.rewards)
            self.tell(Progress(at, self.settings.iterations, "evaluate", len(scored), len(questions)))

        try:
            rows = await evaluate(graph, self.held_out.questions, concurrency=self.settings.concurrency, progress=count)
        finally:
            await backbone.aclose()
        save_rows(self.out / "evaluations" / f"{name}.jsonl", rows, self._manifest(at, graph))
        measured = {"text_tokens": sum(lengths) / len(lengths)} if self.settings.compress else {}
        return {"score": performance(scored.values(), spec.outcome), **evaluation_figures(rows), **measured}

    # --- parts --------------------------------------------------------------------------------------------------------
    def _branches(self) -> bool:
        """Whether runs share plans: where there are any, and executors that learn to carry them out."""
        return self.preset.loop is None and self.preset.trainable != frozenset({"PL"})

    def _questions(self, i: int) -> list[Question]:
        """Those of an iteration: the data set is gone through in a new order each time it is exhausted."""
        n, found = len(self.train.questions), list[Question]()
        first = i * self.settings.questions
        for at in range(first, first + self.settings.questions):
            order = random.Random(f"improve {self.settings.seed} {at // n}").sample(range(n), n)
            found.append(self.train.questions[order[at % n]])
        return list({q.id: q for q in found}.values())

    def _version(self, i: int) -> str:
        return f"{self.out.name}-{i:03d}"

    def _served(self, model: Any, codec: Codec, i: int) -> HFBackbone:
        return HFBackbone.from_model(served(model), codec, version=self._version(i), constant=True)

    def _graph(
        self,
        backbone: HFBackbone,
        frozen: HFBackbone | None,
        retriever: Retriever | None,
        store: RunStore | None,
        *,
        greedy: bool = False,
        compress: str | None = None,
    ) -> Engine:
        return Engine(
            backbone,
            preset=self.preset,
            retriever=retriever,
            frozen_backbone=frozen,
            k=self.settings.k,
            limits=limits_of(self.preset, **self.settings.limits),
            sampling=Sampling(temperature=0.0 if greedy else self.settings.temperature),
            recorder=store,
            compress=compress,
        )

    def _manifest(self, i: int, graph: Engine) -> dict[str, Any]:
        corpus = graph.retriever.corpus_id if graph.retriever else None
        version = graph.backbone.version
        return manifest(
            seeds=[self.settings.seed], improve=self.facts, iteration=i, corpus_id=corpus, k=graph.k,
            backbone_version=version, graph_hash=graph.graph_hash, preset=self.preset.name,
        )  # fmt: skip

    # --- on disk ------------------------------------------------------------------------------------------------------
    def _iteration(self, i: int) -> Path:
        return self.out / "iterations" / f"{i:03d}"

    def _resume(self) -> tuple[int, list[dict[str, Any]], dict[int, dict[str, Any]]]:
        path = self.out / STATE
        if not path.exists():
            return 0, [], {}
        state = json.loads(path.read_text(encoding="utf-8"))
        facts = json.loads(json.dumps(self.facts))
        if state["facts"] != facts:
            raise ConfigError(
                f"{str(self.out)!r} holds another learning run: {_changed(state['facts'], facts)}.",
                code="IMPROVE_CHANGED",
                hint="another --out folder, or --fresh to begin again",
            )
        return state["done"], state["history"], {int(k): v for k, v in state["evaluations"].items()}

    def _commit(self, trainer: PPOTrainer, i: int, metrics: dict[str, Any]) -> None:
        """Checkpoint first, then the state that names it: a kill between the two repeats the iteration."""
        trainer.save_checkpoint(self._iteration(i) / "checkpoint")
        self.history.append(metrics)
        self.done = i + 1
        if i + 1 in self.evaluations:
            trainer.export(self.out / "models" / f"{i + 1:03d}", model=self.chosen)
        self._save()
        lines = "".join(json.dumps(m) + "\n" for m in self.history)
        write_whole(self.out / METRICS, lines)
        wanted, merging = {i - j for j in range(self.keep)}, needed(self.window, i + 1)
        for folder in sorted((self.out / "iterations").iterdir()):
            if int(folder.name) not in wanted:
                drop_checkpoint(folder / "checkpoint", weights=int(folder.name) not in merging)
        self.tell(Progress(i, self.settings.iterations, "done", 1, 1, metrics))

    def _save(self) -> None:
        state = {
            "facts": self.facts,
            "done": self.done,
            "history": self.history,
            "evaluations": {str(k): v for k, v in self.evaluations.items()},
        }
        write_whole(self.out / STATE, json.dumps(state, indent=1) + "\n")

    def _ended(self, trainer: PPOTrainer, verdict: Verdict | None, seconds: float) -> Improved:
        """Weights of the evaluations are on disk: the best of them is the last good version."""
        scored = [i for i, e in self.evaluations.items() if e["score"] is not None]
        best = best_of(self.evaluations)
        best = self.done if best is None else best
        folders = {i: self.out / "models" / f"{i:03d}" for i in scored if i} | {0: self.source}
        last = folders.get(self.done) or trainer.export(self.out / "models" / f"{self.done:03d}")
        self._save()
        return Improved(
            self.out, self.done, self.history, self.evaluations, folders.get(best, last), best, last, verdict, seconds
        )


def _changed(was: Any, now: Any, name: str = "") -> str:
    """What differs between nested facts: dotted names, with the old and the new value."""
    if not (isinstance(was, Mapping) and isinstance(now, Mapping)):
        return f"{name} was {was!r} and is {now!r}"
    told = [
        _changed(was.get(k), now.get(k), f"{name}.{k}" if name else k)
        for k in dict.fromkeys((*was, *now))
        if was.get(k) != now.get(k)
    ]
    return "; ".join(told)


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
