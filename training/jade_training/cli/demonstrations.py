"""`jade demonstrations`: what is right for every role on your own questions, to be imitated by `jade sft`.

Invariant: thin. The command parses its options, calls `teaching`, and prints what came out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing

app = single()


@command(app, "demonstrations")
def demonstrations(
    cli: Cli,
    dataset: Annotated[str, typer.Argument(help="Questions with gold answers: a file, a folder, or a name.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the demonstrations go, as JSON lines.")],
    corpus: Annotated[str | None, typer.Option(help="What is searched; default: the data set's own passages.")] = None,
    profile: Annotated[str, typer.Option(help="How prompts look: brief (small models), chat or compact.")] = "brief",
    single_: Annotated[
        bool, typer.Option("--single/--no-single", help="Teach sub-questions as questions of their own, too.")
    ] = True,
    unknown: Annotated[float, typer.Option(min=0.0, max=1.0, help="Most of the answers that are unknown.")] = 0.15,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a folder with several: train, dev ..")] = None,
    format: Annotated[str | None, typer.Option(help="Where it cannot be told from the data.")] = None,
) -> None:
    """Turn questions with answers into demonstrations of every role, over what a search really brings."""
    from jade_graph.assembly import open_retriever_for
    from jade_graph.backbones.codec import PROFILES
    from jade_graph.data import load_dataset
    from jade_graph.errors import DataError
    from jade_graph.errors import unknown as unknown_name
    from jade_graph.settings.manifest import manifest
    from jade_graph.sync import run_sync
    from jade_training.supervised import files, teaching

    if profile not in PROFILES:
        raise unknown_name("prompt profile", profile, PROFILES, code="BACKBONE_PROFILE")
    cli.put("corpus", corpus)
    data = load_dataset(dataset, limit=limit, split=split, format=format)
    lessons = [found for question in data.questions if (found := teaching.lesson(question))]
    left = len(data.questions) - len(lessons)
    if single_:
        lessons += teaching.single(lessons)
    if not lessons:
        raise DataError(
            f"none of the {len(data.questions)} questions of {dataset!r} can be taught: they have no gold answers.",
            code="DEMONSTRATIONS_NONE",
            hint="questions with answers[], and decomposition[] where they take several steps",
        )
    s = cli.settings
    with indexing(cli) as progress:
        retriever = open_retriever_for(cli.config, data, progress)
    with cli.out.progress("teaching") as tick:
        shown, dropped = run_sync(
            teaching.teach(lessons, retriever, profile=profile, k=s.k, unknown=unknown, seed=s.seed, progress=tick)
        )
    about = manifest(
        dataset=data.name,
        dataset_id=data.dataset_id,
        questions=len(data.questions),
        lessons=len(lessons),
        corpus_id=retriever.corpus_id,
        profile=profile,
        k=s.k,
        seed=s.seed,
        unknown=unknown,
    )
    files.write(out, shown, about)
    told = {
        "out": str(out),
        "demonstrations": len(shown),
        "by_role": files.by_role(shown),
        "lessons": len(lessons),
        "questions_left_out": left,
        "left_out": dict(dropped),
        "manifest": about,
    }
    cli.out.result(told, lambda: _show(told))


def _show(told: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    rows = list(told["by_role"].items())
    notes = [f"{count} left out: {why}" for why, count in told["left_out"].items()]
    if told["questions_left_out"]:
        notes.insert(0, f"{told['questions_left_out']} questions left out: no answer, or steps that cannot be written")
    return [
        table(
            ("role", "demonstrations"), rows, right="demonstrations", title=f"{told['demonstrations']} in {told['out']}"
        ),
        *(Text(note, style="dim") for note in notes),
        Text(f"Next: jade sft {told['out']} --backbone FOLDER --out taught", style="dim"),
    ]
