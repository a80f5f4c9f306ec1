"""`jade diff`: what changed between two versions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer

from jade_graph.cli.command import Cli, command, single

app = single()


@command(app, "diff")
def diff(
    cli: Cli,
    a: Annotated[str, typer.Argument(metavar="V1", help="A number, an alias, or models:/NAME/NUMBER.")],
    b: Annotated[str, typer.Argument(metavar="V2", help="The same, compared with V1.")],
    weights_only: Annotated[bool, typer.Option("--weights-only", help="Ask no questions.")] = False,
    dataset: Annotated[
        str | None, typer.Option(help="Questions for both; default: what the log has, else gate.toml's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    evidence: Annotated[
        list[Path] | None, typer.Option(help="A file of jade eval --out; twice: V1's, then V2's. Nothing is run.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Method; jade presets list.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus to search; default: the data set's own passages.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Most answers of each kind that turned.")] = 10,
    look: Annotated[
        bool, typer.Option("--look", help="Look inside a recorded decision in both: which heads took it over.")
    ] = False,
    run: Annotated[str, typer.Option(help="With --look: the run; last: the newest.")] = "last",
    node: Annotated[str, typer.Option(help="With --look: the action, as jade look takes it.")] = "DS",
    markdown: Annotated[Path | None, typer.Option(help="Write the tables to this file too.")] = None,
) -> None:
    """Compare two versions: drift of the weights by layer, plans, answers that turned right or wrong, figures.

    The answers come from the promotion log where it compared the two; otherwise both answer the questions now.
    """
    from jade_graph.cli.look_versions import inside_both, told
    from jade_graph.cli.showing import markdown as written
    from jade_graph.cli.showing import of_diff, shown
    from jade_graph.errors import UsageError
    from jade_graph.gate import Policy, load_evidence, measure
    from jade_graph.gate.diff import diff as compare
    from jade_graph.gate.diff import logged
    from jade_graph.registry import Registry

    for name, value in (("preset", preset), ("corpus", corpus)):
        cli.put(name, value)
    registry = Registry.of(cli.settings)
    versions = [registry.get(a), registry.get(b)]
    policy = Policy.load()
    trial = None
    sides: dict[str, str] = {}  # what the studio's page can show as well
    if evidence:
        if len(evidence) != 2:
            raise UsageError(
                f"files of evidence needed: 2; given: {len(evidence)}.",
                code="EVIDENCE_FILES",
                hint="--evidence V1.jsonl --evidence V2.jsonl",
            )
        files = {version.number: path for version, path in zip(versions, evidence, strict=True)}
        trial = load_evidence(files, versions)
        sides = {"a": str(evidence[0]), "b": str(evidence[1])}
    elif not weights_only and versions[0].number != versions[1].number:
        trial = None if dataset or limit or preset or corpus else logged(registry, *versions)
        if trial is not None:
            sides = {"a": str(versions[0].number), "b": str(versions[1].number)}
        else:
            rules = replace(policy, questions=replace(policy.questions, dataset=dataset or policy.questions.dataset))
            with cli.out.progress("asking both versions", "answers") as tick:
                trial = measure(registry, versions, cli.config, rules, limit=limit, tick=tick)
    found = compare(registry, a, b, trial, metric=policy.gain.metric)
    if sides:
        cli.out.log(f"question by question: jade studio, its page /compare?{urlencode(sides)}")
    inside = None
    if look:
        inside = inside_both(cli, versions, run, node)
    parts = of_diff(found, show)
    title = f"{found.a.name}: version {found.b.number} against version {found.a.number}"
    if markdown is not None:
        markdown.write_text(written(title, parts), encoding="utf-8")
        cli.out.log(f"wrote {markdown}")
    whole = found.as_dict() if inside is None else {**found.as_dict(), "look": inside}
    cli.out.result(whole, lambda: [title, *shown(parts), *(told(inside) if inside is not None else [])])
