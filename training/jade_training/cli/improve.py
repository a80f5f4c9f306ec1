"""Learn from runs: roll out, train, evaluate, again.

Invariant: thin. The command parses its options, calls `Improver`, and prints what came out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing
from jade_graph.cli.taught import suit, warn_untaught

if TYPE_CHECKING:
    from jade_training.improve.improver import Improved, Progress
    from jade_training.learner.logits import Pair

LISTED = {"improve": ("Learn", "Learn from runs: roll out, train, evaluate, again.")}
app = single()
ROLL, REWARD, UPDATE = "Rolling out", "Reward and credit", "The update"
COMPRESS, EVALUATE, KEEP = "Shorter texts", "Evaluating", "What is kept"
ELSEWHERE = {"seed": "--seed", "updates": "--iterations", "credit": "--credit"}
"""Hyper-parameters that other options decide."""
SCHEDULES = {"linear": "linear", "warmup-stable": "constant", "constant": "constant"}
"""Names of schedules, and what the learner calls them."""


@command(app, "improve")
def improve(
    cli: Cli,
    dataset: Annotated[str, typer.Argument(help="Questions to learn from.")] = "microworld:train?n=2000",
    held_out: Annotated[
        str | None, typer.Option(help="Questions to be measured on; for microworlds: microworld:validation?n=140.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the learning run; the same goes on where it stopped.", rich_help_panel=KEEP)
    ] = Path("improved"),
    preset: Annotated[str | None, typer.Option(help="Method; its trainable roles learn.")] = None,
    backbone: Annotated[str | None, typer.Option(help="tiny, a folder, or a hub id.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus to search; default: the data sets' own passages.")] = None,
    iterations: Annotated[int, typer.Option(min=1, help="Rounds of rollout and update.", rich_help_panel=ROLL)] = 25,
    questions: Annotated[int, typer.Option(min=1, help="Questions an iteration.", rich_help_panel=ROLL)] = 24,
    runs_per_question: Annotated[
        int, typer.Option(min=1, metavar="G", help="Runs of each question.", rich_help_panel=ROLL)
    ] = 8,
    runs_per_plan: Annotated[
        int, typer.Option(min=1, help="Of these, runs that carry out each plan drawn.", rich_help_panel=ROLL)
    ] = 2,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Of AdamW.", rich_help_panel=UPDATE)] = None,
    estimator: Annotated[
        str | None, typer.Option(help="Advantages: tree, rloo, grpo or gae (a value head).", rich_help_panel=UPDATE)
    ] = None,
    credit: Annotated[
        str | None,
        typer.Option(
            help="Which action earned how much: turn, return_to_go, final ..; default: the preset's.",
            rich_help_panel=REWARD,
        ),
    ] = None,
    outcome: Annotated[
        str, typer.Option(help="Reward of a run: f1, em, f1-yes-no, or one of your own.", rich_help_panel=REWARD)
    ] = "f1",
    call_cost: Annotated[
        float, typer.Option(min=0.0, help="Cost of a model call, in units of the outcome.", rich_help_panel=REWARD)
    ] = 0.02,
    alpha: Annotated[
        float | None, typer.Option(min=0.0, help="Turn cost; default: the preset's.", rich_help_panel=REWARD)
    ] = None,
    beta: Annotated[
        float | None, typer.Option(min=0.0, help="Retrieval cost; default: the preset's.", rich_help_panel=REWARD)
    ] = None,
    explore: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of root plans drawn uniformly.", rich_help_panel=ROLL)
    ] = 0.4,
    temperature: Annotated[
        float, typer.Option(min=0.01, help="At which roles are sampled in rollouts.", rich_help_panel=ROLL)
    ] = 0.6,
    lora: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="RANK", help="Train low-rank adapters in place of all weights.", rich_help_panel=UPDATE
        ),
    ] = None,
    ppo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Any hyper-parameter of the update, e.g. clip=0.1; may be repeated.",
            rich_help_panel=UPDATE,
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Of the learning rate: linear (to a tenth, default), or warmup-stable (constant).",
            rich_help_panel=UPDATE,
        ),
    ] = None,
    merge: Annotated[
        str | None,
        typer.Option(
            metavar="DECAY:SIZE",
            help="Evaluate the last SIZE weights merged too, e.g. 1-sqrt:8 (docs: wsm).",
            rich_help_panel=EVALUATE,
        ),
    ] = None,
    compress: Annotated[
        str | None,
        typer.Option(
            help="Shorter texts: scma (only what does not count is penalised) or uniform (docs: scma).",
            rich_help_panel=COMPRESS,
        ),
    ] = None,
    compress_alpha: Annotated[
        float | None, typer.Option(min=0.0, help="Weight of that penalty; default .3.", rich_help_panel=COMPRESS)
    ] = None,
    compress_scorer: Annotated[
        str | None,
        typer.Option(
            help="Who weighs: joint (a role that learns, default), frozen or leave_one_out.", rich_help_panel=COMPRESS
        ),
    ] = None,
    compress_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="reference (group, or tokens), kappa, degenerate; may be repeated.",
            rich_help_panel=COMPRESS,
        ),
    ] = None,
    evaluate_every: Annotated[
        int, typer.Option(min=1, help="Iterations between evaluations.", rich_help_panel=EVALUATE)
    ] = 5,
    seed: Annotated[int | None, typer.Option(help="Of questions, sampling and mini-batches.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Only the first so many questions of each data set.", rich_help_panel=EVALUATE),
    ] = None,
    train_limit: Annotated[
        int | None, typer.Option(min=1, help="The same, of those to learn from alone.", rich_help_panel=ROLL)
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at once; default: 64, or 8 of a large model on a CPU.", rich_help_panel=ROLL),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="Demonstrations (jade demonstrations) that hold roles which the policy seldom visits.",
            rich_help_panel=UPDATE,
        ),
    ] = None,
    mixture: Annotated[
        Path | None,
        typer.Option(
            help="Shares of kinds of questions, of data sets or of roles (jade mix search).", rich_help_panel=ROLL
        ),
    ] = None,
    mlflow: Annotated[
        bool, typer.Option(help="Log metrics to MLflow (MLFLOW_TRACKING_URI).", rich_help_panel=KEEP)
    ] = False,
    register: Annotated[
        bool, typer.Option("--register", help="Register the best as a version, the challenger.", rich_help_panel=KEEP)
    ] = False,
    fresh: Annotated[
        bool, typer.Option(help="Begin again: what is in the folder is thrown away.", rich_help_panel=KEEP)
    ] = False,
) -> None:
    """Roll out, train, evaluate, again and again; stop with a reason when learning collapses.

    Killed at any time, the same command goes on where it stopped.
    """
    from dataclasses import replace

    from jade_graph import plugins
    from jade_graph.assembly import is_microworld
    from jade_graph.errors import UsageError, unknown
    from jade_graph.registry.place import Place
    from jade_graph.sync import run_sync
    from jade_training.cli.overrides import overridden
    from jade_training.cli.workfolder import IMPROVE, taken
    from jade_training.improve.compressing import chosen as chosen_compression
    from jade_training.improve.holding import microworld_replay, replay_of
    from jade_training.improve.improver import Improver
    from jade_training.improve.inputs import MICROWORLD, data_of, mixed, require_answers, require_apart
    from jade_training.improve.registering import register_best, start_of
    from jade_training.improve.settings import PPO, ImproveSettings, fitted
    from jade_training.improve.tracking import tracked
    from jade_training.mixing.mixture import Mixture

    for name, value in (("preset", preset), ("backbone", backbone), ("corpus", corpus), ("seed", seed)):
        cli.put(name, value)
    if not is_microworld(dataset):
        suit(cli)
    warn_untaught(cli)
    if held_out is None and not dataset.startswith(MICROWORLD):
        raise UsageError(
            f"nothing is said of what is held out from {dataset!r}.", code="NO_HELD_OUT", hint="--held-out dev.jsonl"
        )
    chosen: dict[str, Any] = {"learning_rate": learning_rate, "estimator": estimator}
    if schedule is not None:
        if schedule not in SCHEDULES:
            raise unknown("schedule", schedule, SCHEDULES, code="UNKNOWN_SCHEDULE")
        chosen["schedule"] = SCHEDULES[schedule]
    given = replace(PPO, **{k: v for k, v in chosen.items() if v is not None})
    texts = [*([f"lora.rank={lora}", f"lora.alpha={2 * lora}"] if lora else []), *(ppo or [])]
    start = start_of(cli.settings)
    settings = ImproveSettings(
        preset=cli.settings.preset,
        iterations=iterations,
        questions=questions,
        runs_per_question=runs_per_question,
        runs_per_plan=runs_per_plan,
        explore=explore,
        credit=credit,
        temperature=temperature,
        outcome=outcome,
        call_cost=call_cost,
        alpha=alpha,
        beta=beta,
        evaluate_every=evaluate_every,
        seed=cli.settings.seed,
        k=cli.settings.k,
        merge=merge,
        compress=chosen_compression(compress, compress_alpha, compress_scorer, compress_set or ()),
        ppo=overridden(given, texts, elsewhere=ELSEWHERE),
    )
    settings = fitted(
        settings,
        start,
        limits=cli.config.chosen("limits"),
        concurrency=concurrency,
        learning_rate=settings.ppo.learning_rate if _rate_given(learning_rate, ppo) else None,
        kept={text.partition("=")[0].strip() for text in ppo or ()},
    )
    held_out = held_out or "microworld:validation?n=140"
    with indexing(cli) as progress:
        train = data_of(cli.config, dataset, limit=train_limit or limit, progress=progress)
        measured = data_of(cli.config, held_out, limit=limit, progress=progress)
    require_apart(train, measured)
    if mixture is not None:
        train, settings = mixed(train, settings, Mixture.read(mixture))
    for note in require_answers(train, measured, settings.outcome):
        cli.out.warn(note)
    taken(out, IMPROVE, fresh=fresh)
    kept: list[Pair] = []
    if replay is not None:
        from jade_graph.backbones.codec import Codec
        from jade_training.supervised import files

        shown, about = files.read(replay)
        kept = replay_of(shown, Codec.from_folder(start, profile=about.get("profile")), seed=settings.seed)
    elif dataset.startswith(MICROWORLD) and plugins.load("jade.presets", settings.preset).loop is None:
        from jade_graph.backbones.codec import Codec

        kept = microworld_replay(Codec.from_folder(start).tokenizer, seed=settings.seed)
    improver = Improver(out, start, train, measured, settings, replay=kept)
    place = Place.find(settings=cli.settings) if mlflow else None
    logged = tracked(place, out, settings.as_dict(), tell=cli.out.log)
    with cli.out.progress(f"{settings.preset} on {train.name}", "%") as tick, logged as log:

        def tell(p: Progress) -> None:
            inside = p.done / p.of if p.of else 0.0
            # An evaluation is named by the updates before it, and made at the end of the last of them.
            at = {"rollout": 0.7 * inside, "train": 0.7, "evaluate": 0.1 * inside - 0.1, "done": 1.0}[p.phase]
            number = p.iteration + (p.phase != "evaluate")
            tick(max(0, int(100 * (p.iteration + at))), 100 * p.iterations, f"{p.phase} {number} of {p.iterations}")
            if p.phase != "done":
                return
            log(p.metrics, p.iteration)
            for at in (p.iteration + 1,) if p.iteration else (0, 1):
                log({"held_out": improver.evaluations.get(at, {})}, at)
            cli.out.log(_line(p))

        improver.tell = tell
        try:
            result = run_sync(improver.run())
        except KeyboardInterrupt:
            cli.out.warn(f"{improver.done} of {iterations} iterations are kept. The same command goes on from there.")
            raise
    following = evaluated(cli, held_out, result, limit=limit)
    if not register:
        cli.out.result(as_dict(result), lambda: show(result, following))
        return
    version = register_best(cli.settings, result, tell=cli.out.log)
    told = "Nothing was registered: the best is the start."
    if version is not None:
        told = f"Registered as version {version.number}. Next: jade promote {version.number}"
    described = as_dict(result) | {"version": None if version is None else version.as_dict()}
    cli.out.result(described, lambda: [*show(result, following), told])


def evaluated(cli: Cli, held_out: str, result: Improved, *, limit: int | None = None) -> str:
    """The command that gives the best weights' figures again: with whatever was said on this command line, quoted."""
    from shlex import join

    line = ["jade", "eval", held_out, "--backbone", str(result.best)]
    said = dict(text.split("=", 1) for text in cli.overrides)
    line += [word for name in ("preset", "corpus") if name in said for word in (f"--{name}", said[name])]
    others = {name: value for name, value in said.items() if name not in ("preset", "corpus", "backbone")}
    line += [word for name, value in others.items() for word in ("--set", f"{name}={value}")]
    line += ["--limit", str(limit)] if limit else []
    return join([*line, *(["--config", str(cli.config_file)] if cli.config_file else [])])


def advice(result: Improved) -> str:
    """What to say where the best weights' actions on the held-out questions are mostly illegal; else empty."""
    from jade_graph.scoring import weakness

    best = result.evaluations.get(result.best_iteration)
    return weakness.of_share(best["illegal_rate"]) if best else ""


def _rate_given(option: float | None, ppo: Sequence[str] | None) -> bool:
    return option is not None or any(text.startswith("learning_rate=") for text in ppo or ())


def _line(p: Progress) -> str:
    m = p.metrics
    plans = "  ".join(f"{plan} {n}" for plan, n in list(m["plans"].items())[:3])
    return (
        f"{p.iteration + 1:3d}/{p.iterations}  score {_number(m['score'])}  calls {m['calls']:.1f}  "
        f"illegal {1 - m['legal']:.1%}  routing {m['routing_bits']:.2f} bits  {plans}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def as_dict(result: Improved) -> dict[str, Any]:
    return {
        "folder": str(result.folder),
        "iterations": result.iterations,
        "stopped": None if result.stopped is None else {"code": result.stopped.code, "why": result.stopped.message},
        "best": str(result.best),
        "best_iteration": result.best_iteration,
        "last": str(result.last),
        "evaluations": {str(i): e for i, e in sorted(result.evaluations.items())},
        "history": result.history,
        "advice": advice(result),
        "seconds": round(result.seconds, 1),
    }


def show(result: Improved, following: str) -> list[Any]:
    """The evaluations as a table, and what to do next."""
    from rich.text import Text

    from jade_graph.cli.console import table

    kinds = sorted({kind for e in result.evaluations.values() for kind in e["f1_by_kind"]} - {"all"})
    own = any(_number(e["score"]) != _number(e["f1"]) for e in result.evaluations.values())  # another outcome than F1
    lines = []
    for i, e in sorted(result.evaluations.items()):
        low, high = e["f1_ci95"] or (0.0, 0.0)
        top = next(iter(e["plans"].items()))
        mark = "start" if i == 0 else f"{i} *" if i == result.best_iteration else str(i)
        mark += " merged" if e.get("merged") else ""
        figures = [*([_number(e["score"])] if own else []), f"{_number(e['f1'])} ±{(high - low) / 2:.3f}"]
        lines.append(
            (
                mark, *figures, *(f"{e['f1_by_kind'].get(k, 0.0):.2f}" for k in kinds),
                f"{e['calls']:.1f}", f"{e['illegal_rate']:.1%}", f"{e['routing_bits']:.2f}", f"{top[0]} {top[1]:.0%}",
            )
        )  # fmt: skip
    columns = ("iteration", *(["score"] if own else []), "F1", *kinds, "calls", "illegal", "bits", "first plan")
    out: list[Any] = [table(columns, lines, title="greedy, on held-out questions", right=" ".join(columns[1:-1]))]
    if result.stopped is not None:
        out.append(Text(f"Stopped after {result.iterations}: {result.stopped.code}: {result.stopped.message}", "red"))
    if result.best_iteration == 0:
        out.append(Text("No iteration did better than the start, which is the best."))
    if said := advice(result):
        out.append(Text(said, style="yellow"))
    out += [Text(f"best    {result.best}"), Text(f"Next: {following}")]
    return out
