"""`jade rollout`: many recorded runs of one policy, to be exported and learned from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing
from jade_graph.cli.taught import suit, warn_untaught

if TYPE_CHECKING:
    from jade_graph.langchain.runnable import JadeGraph
    from jade_graph.rollouts.collecting import Rollout
    from jade_graph.settings.config import Config

app = single()


@command(app, "rollout")
def rollout(
    cli: Cli,
    dataset: Annotated[str, typer.Argument(help="A data set: a file, a folder, or microworld:train?n=200.")],
    preset: Annotated[str | None, typer.Option(help="Method; jade presets list.")] = None,
    runs_per_question: Annotated[int, typer.Option(min=1, metavar="G", help="Runs of each question.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Seeds of the runs come from it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    id: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the rollout; default: from the above.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="Of the trained roles; default 1.")] = None,
    explore: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of root plans drawn uniformly.")] = 0.0,
    runs_per_plan: Annotated[int, typer.Option(min=1, help="Runs that carry out each plan drawn.")] = 1,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; default: 64, or 8 of a large model on a CPU.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes with a model each, for small models on several cores.")
    ] = 1,
    backbone: Annotated[str | None, typer.Option(help="tiny, a hub id, a folder, or openai:URL#MODEL.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus to search; default: the data set's own passages.")] = None,
    store: Annotated[str | None, typer.Option(help="Run store, e.g. sqlite:///runs.db.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a folder with several: train, dev ..")] = None,
    format: Annotated[str | None, typer.Option(help="Where the data do not tell it: musique, hotpot ..")] = None,
) -> None:
    """Run every question of a data set G times and record what each role did, with one version of the model.

    The same command again goes on where it stopped, however it stopped: runs that ended are not run again.
    """
    from jade_graph.assembly import corpus_name, is_microworld, open_retriever_for, usual_concurrency
    from jade_graph.data import load_dataset
    from jade_graph.langchain.session import open_session
    from jade_graph.rollouts import Workers, tally
    from jade_graph.rollouts.making import facts_of
    from jade_graph.sync import run_sync

    for name, value in (
        ("preset", preset), ("seed", seed), ("backbone", backbone), ("corpus", corpus), ("store.url", store)
    ):  # fmt: skip
        cli.put(name, value)
    data = load_dataset(dataset, limit=limit, split=split, format=format)
    cli.noted(data)
    if not is_microworld(data.name):
        suit(cli)
    warn_untaught(cli)
    with indexing(cli) as progress:
        retriever = open_retriever_for(cli.config, data, progress)
    own = corpus_name(data.name) if data.passages and cli.config.origin("corpus") == "default" else None
    sampling = {"temperature": _temperature(cli, temperature), "top_p": cli.settings.sampling.top_p}
    settings: dict[str, Any] = {
        "seed": cli.settings.seed, "sampling": sampling, "explore": explore, "runs_per_plan": runs_per_plan
    }  # fmt: skip
    if not sampling["temperature"] and runs_per_question > 1:
        cli.out.warn("at temperature 0 all runs of a question are the same.")
    with open_session(cli.config, retriever=retriever, follow=False) as session:
        facts = facts_of(session.graph, **settings)
        name = id or f"{facts['preset']}-{_digest(facts, data.name)}"
        total, done = runs_per_question * len(data), 0
        cli.out.log(f"rollout {name}: {total} runs, {len(data)} questions x {runs_per_question}")

        def count(run: Any) -> None:
            nonlocal done
            del run
            done += 1
            tick(done, total)

        try:
            with cli.out.progress(f"{facts['preset']} on {data.name}", "runs") as tick:
                result = run_sync(
                    tally(
                        session.graph,
                        data.questions,
                        rollout_id=name,
                        runs_per_question=runs_per_question,
                        concurrency=concurrency or usual_concurrency(session.backbone),
                        progress=count,
                        store=session.store,
                        left_out=data.odd,
                        workers=Workers(workers, partial(_worker, cli.config, own)),
                        **settings,
                    )
                )
        except KeyboardInterrupt:
            cli.out.warn(
                f"{done} of {total} runs are recorded. The same command goes on from there; from another place, add "
                f"--id {name}."
            )
            raise
    following = f"jade export {name} --out {name}" + (f" --set store.url={store}" if store else "")
    told = asdict(result) | {"runs_per_s": result.runs_per_s, "next": following, "made_with": facts}
    told["left_out"] = data.odd
    cli.out.result(told, lambda: _show(result, following))


@contextmanager
def _worker(config: Config, corpus: str | None) -> Iterator[JadeGraph]:
    """The command's graph, in a process of its own. `corpus`: the data set's own passages, which are indexed by now."""
    from jade_graph.assembly import open_named, open_retriever
    from jade_graph.langchain.session import open_session

    settings = config.settings
    retriever = open_named(settings, corpus) if corpus else open_retriever(settings)
    with open_session(config, retriever=retriever, follow=False) as session:
        yield session.graph


def _temperature(cli: Cli, asked: float | None) -> float:
    """The option, else what somebody set, else 1: the settings' own default is for answering, not for sampling."""
    if asked is not None:
        return asked
    return 1.0 if cli.config.origin("sampling.temperature") == "default" else cli.settings.sampling.temperature


def _digest(facts: dict[str, Any], dataset: str) -> str:
    """Eight hexadecimal digits over what a rollout must be gone on with: the same command has the same rollout."""
    text = json.dumps({**facts, "dataset": dataset}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _show(result: Rollout, following: str) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    speed = "-" if result.runs_per_s is None else f"{result.runs_per_s:.1f}"
    f1 = "-" if result.f1 is None else f"{result.f1:.3f}"
    plans = [f"{plan} {share:.0%}" for plan, share in list(result.plans.items())[:3]]
    row = (
        result.runs,
        result.fresh,
        speed,
        result.failed,
        result.unscored,
        f1,
        f"{result.calls:.2f}",
        "  ".join(plans) + ("  .." if len(result.plans) > 3 else ""),
    )
    columns = ("runs", "now", "runs/s", "failed", "unscored", "F1", "calls", "plans")
    shown = table(columns, [row], title=f"rollout {result.id}", right="runs now runs/s failed unscored F1 calls")
    return [shown, Text(following, style="dim")]
