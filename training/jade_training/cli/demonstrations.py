"""`jade demonstrations`: what is right for every role on your own questions, to be imitated by `jade sft`.

Invariant: thin. The command parses its options, calls `teaching`, and prints what came out.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing

if TYPE_CHECKING:
    from jade_graph.data import Dataset
    from jade_graph.microworld.shown import Shown
    from jade_training.supervised.teaching import Lesson

LISTED = {"demonstrations": ("Learn", "What is right for every role on your own questions.")}
app = single()


@command(app, "demonstrations")
def demonstrations(
    cli: Cli,
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET..",
            help="Questions with gold answers (files, folders, names), or folders of jade export: runs that went well.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the demonstrations go, as JSON lines.")],
    corpus: Annotated[str | None, typer.Option(help="What is searched; default: the data set's own passages.")] = None,
    profile: Annotated[str, typer.Option(help="How prompts look: brief (small models), chat or compact.")] = "brief",
    single_: Annotated[
        bool, typer.Option("--single/--no-single", help="Teach sub-questions as questions of their own, too.")
    ] = True,
    k: Annotated[
        list[int] | None,
        typer.Option("--k", min=1, help="Passages a search brings; repeated: each in turn. Default: the setting k."),
    ] = None,
    most: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=N", help="At most so many of a role, as evenly from the data sets; repeated."),
    ] = None,
    minimum: Annotated[float, typer.Option(help="Of an export: actions of runs that earned at least this.")] = 0.8,
    unknown: Annotated[float, typer.Option(min=0.0, max=1.0, help="Most of the answers that are unknown.")] = 0.15,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions of each.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a folder with several: train, dev ..")] = None,
    format: Annotated[str | None, typer.Option(help="Where it cannot be told from the data.")] = None,
) -> None:
    """Turn questions with answers into demonstrations of every role, over what a search really brings."""
    from jade_graph.backbones.codec import PROFILES
    from jade_graph.data import load_dataset
    from jade_graph.errors import DataError
    from jade_graph.errors import unknown as unknown_name
    from jade_graph.settings.manifest import manifest
    from jade_training import offline
    from jade_training.supervised import files, teaching
    from jade_training.supervised.selecting import at_most, limits_of

    if profile not in PROFILES:
        raise unknown_name("prompt profile", profile, PROFILES, code="BACKBONE_PROFILE")
    cli.put("corpus", corpus)
    limits, ks = limits_of(most or ()), k or [cli.settings.k]
    found, about, dropped, left = [], [], Counter[str](), 0
    odd: list[dict[str, str]] = []
    for dataset in datasets:
        if offline.is_export(dataset):
            shown = offline.went_well(dataset, minimum)
            about.append({"export": dataset, "minimum": minimum, "demonstrations": len(shown)})
            found.append(shown)
            continue
        data = load_dataset(dataset, limit=limit, split=split, format=format)
        cli.noted(data)
        odd += data.odd
        lessons = [taught for question in data.questions if (taught := teaching.lesson(question))]
        left += len(data.questions) - len(lessons)
        if single_:
            lessons += teaching.single(lessons)
        if not lessons:
            raise DataError(
                f"none of the {len(data.questions)} questions of {dataset!r} can be taught: they have no gold answers.",
                code="DEMONSTRATIONS_NONE",
                hint="questions with answers[], and decomposition[] where they take several steps",
            )
        shown, told = _taught(cli, data, lessons, profile, ks, unknown)
        found.append(shown)
        dropped += told["left_out"]
        about.append({name: value for name, value in told.items() if name != "left_out"})
    kept = at_most(found, limits, seed=cli.settings.seed)
    dropped["more than --most"] += sum(map(len, found)) - len(kept)
    made = manifest(
        **(about[0] if len(about) == 1 else {"datasets": about}),
        profile=profile,
        k=ks[0] if len(ks) == 1 else ks,
        seed=cli.settings.seed,
        unknown=unknown,
        most=limits,
    )
    files.write(out, kept, made)
    told = {
        "out": str(out),
        "demonstrations": len(kept),
        "by_role": files.by_role(kept),
        "lessons": sum(each.get("lessons", 0) for each in about),
        "questions_left_out": left,
        "left_out": dict(+dropped),
        "odd_questions": odd,
        "manifest": made,
    }
    cli.out.result(told, lambda: _show(told))


def _taught(
    cli: Cli, data: Dataset, lessons: list[Lesson], profile: str, ks: list[int], unknown: float
) -> tuple[list[Shown], dict[str, Any]]:
    """Demonstrations of one data set, and what they were made with."""
    from jade_graph.assembly import open_retriever_for
    from jade_graph.sync import run_sync
    from jade_training.supervised import teaching

    with indexing(cli) as progress:
        retriever = open_retriever_for(cli.config, data, progress)
    with cli.out.progress(f"teaching {data.name}", "questions") as tick:
        made = teaching.teach_over(
            lessons, retriever, ks, profile=profile, unknown=unknown, seed=cli.settings.seed, progress=tick
        )
        shown, left = run_sync(made)
    about = {"dataset": data.name, "dataset_id": data.dataset_id, "questions": len(data.questions)}
    return shown, {**about, "lessons": len(lessons), "corpus_id": retriever.corpus_id, "left_out": left}


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
