"""`jade microworld`: the invented world, its questions, and which plan is right for which kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group

app = group("microworld", "The invented world: questions, best plans, training the bundled model.")
Spec = Annotated[str, typer.Argument(help="A split (train, validation, test) with options: test?n=200&seed=1.")]


@command(app)
def show(
    cli: Cli,
    world: Spec = "test",
    per_kind: Annotated[int, typer.Option(min=1, help="Questions of each kind.")] = 1,
    passages: Annotated[bool, typer.Option(help="Show the passages that hold the answer.")] = False,
) -> None:
    """Show a world: its size, and questions of every kind with answers and best plans."""
    from jade_graph.cli.console import table
    from jade_graph.microworld import BEST_PLAN, KINDS, make_questions, parse

    best = {str(kind): plan for kind, plan in BEST_PLAN.items()}
    made, _, name = parse(world)
    questions = make_questions(made, per_kind * len(KINDS), seed=cli.settings.seed, kinds=dict.fromkeys(KINDS, 1.0))
    rows: list[dict[str, Any]] = [
        {
            "kind": q.type,
            "question": q.question,
            "answers": list(q.answers),
            "plan": best[q.type],
            "passages": [{"id": i, "title": made.by_id[i].title, "text": made.by_id[i].text} for i in q.supporting],
        }
        for q in questions
    ]
    value = {"world": name, "parameters": made.parameters, "passages": len(made.passages), "questions": rows}

    def view() -> list[Any]:
        from rich.text import Text

        head = Text(f"{name}: {len(made.entities):,} entities, {len(made.passages):,} passages", style="bold")
        cells = [
            (r["kind"], _question(r, passages), " or ".join(r["answers"]), r["plan"])
            for r in sorted(rows, key=lambda r: list(KINDS).index(r["kind"]))
        ]
        return [head, table(("kind", "question", "answer", "best plan"), cells)]

    cli.out.result(value, view)


@command(app)
def plans(
    cli: Cli,
    world: Spec = "test?n=140",
    backbone: Annotated[str, typer.Option(help="Who carries the plans out: oracle, tiny, a model ..")] = "oracle",
    facts: Annotated[int, typer.Option(min=1, help="Facts that the oracle reads at once; 2 chains.")] = 1,
) -> None:
    """Force every plan on every kind of question: which plan is right where, and what routing is worth."""
    from jade_graph.assembly import open_backbone
    from jade_graph.microworld import parse
    from jade_graph.microworld.search import WordSearch
    from jade_graph.microworld.table import PLANS, plan_table
    from jade_graph.settings.manifest import manifest
    from jade_graph.sync import run_sync

    made, questions, name = parse(world)
    retriever = WordSearch(made.passages)
    model = None if backbone == "oracle" else open_backbone(cli.settings, backbone)
    with cli.out.progress(f"{len(PLANS)} plans on {len(questions)} questions", "questions") as tick:
        done = iter(range(len(PLANS)))
        found = run_sync(
            plan_table(
                made,
                questions,
                retriever,
                backbone=model,
                facts=facts,
                progress=lambda plan: tick(next(done), len(PLANS), plan),
            )
        )
    facts_of = manifest(
        world=made.parameters, questions=len(questions), backbone=backbone, corpus_id=retriever.corpus_id
    )
    cli.out.result(
        found.as_dict() | {"manifest": facts_of}, lambda: _plan_table(found, f"F1 by plan, {backbone} on {name}")
    )


@command(app)
def users(
    cli: Cli,
    world: Spec = "train?n=60",
    sessions: Annotated[int, typer.Option(min=1, help="Lists that users are shown.")] = 5000,
    etas: Annotated[
        str,
        typer.Option(
            metavar="ETA,..", help="Users: each looks at rank k with chance (1/k)^ETA; the first is heaviest."
        ),
    ] = "2.5,2,1,.8,0",
    depth: Annotated[int, typer.Option(min=1, max=100, help="Passages in a list.")] = 10,
    shuffle: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of sessions with their list in random order; 0: none can be fitted."),
    ] = 0.2,
    corpus: Annotated[str | None, typer.Option(help="The corpus that brings the lists; else word search.")] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the events go.")] = Path("clicks.jsonl"),
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write who looks where, for --examination FILE.")
    ] = None,
) -> None:
    """Simulate users who search a world and click, each in their own way; writes what jade feedback import reads."""
    import json

    from jade_graph.cli.microworld_users import parsed_etas, searched
    from jade_graph.feedback.events import write_events
    from jade_graph.microworld import parse
    from jade_graph.microworld.users import make_crowd, make_events

    made, questions, name = parse(world)
    crowd = make_crowd(len(questions), parsed_etas(etas), seed=cli.settings.seed)
    lists = searched(cli, made, [q.question for q in questions], corpus, depth)
    relevant = {q.question: q.supporting for q in questions}
    events = make_events(crowd, lists, relevant, sessions, shuffle=shuffle, seed=cli.settings.seed)
    count = write_events(out, events)
    known = {"eta": dict(zip(crowd.names, crowd.etas, strict=True)), "others": 1.0}
    if truth is not None:
        truth.write_text(json.dumps(known) + "\n", "utf-8")
    found = sum(any(d in relevant[q] for d in shown) for q, shown in lists.items())
    value = {
        "file": str(out), "world": name, "events": count, "sessions": sessions, "queries": len(lists),
        "with_evidence": found, "shuffle": shuffle, **known,
    }  # fmt: skip
    cli.out.result(
        value,
        lambda: (
            f"{count:,} events of {len(crowd.etas)} users in {out}: {sessions:,} lists for {len(lists)} queries, of "
            f"which {found} hold a passage that answers"
        ),
    )


def _question(row: Any, passages: bool) -> str:
    return "\n".join([row["question"], *(f"  {p['title']}: {p['text']}" for p in row["passages"] if passages)])


def _plan_table(found: Any, title: str) -> Any:
    from rich.text import Text

    from jade_graph.cli.console import table

    kinds, route = list(found.shares), found.route()
    rows = []
    for plan, cells in found.cells.items():
        whole = found.fixed(plan)
        marked = [Text(f"{cells[k].f1:.2f}", style="bold green" if route[k] == plan else "") for k in kinds]
        rows.append((plan, *marked, f"{whole.f1:.2f}", f"{whole.calls:.1f}"))
    whole = found.routed()
    rows.append(("routed", *(route[k] for k in kinds), f"{whole.f1:.2f}", f"{whole.calls:.1f}"))
    return table(("plan", *kinds, "all", "calls"), rows, title=title, right=f"{' '.join(kinds)} all calls")
