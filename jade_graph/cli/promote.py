"""`jade promote`: a version becomes the champion, through the gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from jade_graph.cli.command import Cli, command, single

app = single()


@command(app, "promote")
def promote(
    cli: Cli,
    version: Annotated[str, typer.Argument(help="A number, an alias, or models:/NAME/NUMBER.")] = "challenger",
    policy: Annotated[Path | None, typer.Option(help="Rules of the gate; default ./gate.toml, else built in.")] = None,
    show_policy: Annotated[bool, typer.Option("--show-policy", help="Print the rules as a file and stop.")] = False,
    dataset: Annotated[str | None, typer.Option(help="Held-out questions, instead of the policy's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    preset: Annotated[str | None, typer.Option(help="Method; jade presets list.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus to search; default: the data set's own passages.")] = None,
    evidence: Annotated[
        list[Path] | None,
        typer.Option(help="A file of jade eval --out; twice: the champion's, then the challenger's. Nothing is run."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote past the gate; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why; goes to the log.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, and change nothing.")] = False,
    record: Annotated[bool, typer.Option(help="Record the runs.")] = True,
) -> None:
    """Compare a version with the champion on held-out questions, and make it champion if the gate passes.

    Both answer the same questions with the same seed and budget. It passes with a significant gain (paired bootstrap),
    no significant loss on any type of question, and illegal actions, failures, cost and latency within limits. A
    refusal says which rule, by how much and what to do, and exits with 9. Without a champion only the limits count.
    """
    from jade_graph.cli.showing import of_outcome, shown
    from jade_graph.gate import Policy, measure
    from jade_graph.gate import promote as decide
    from jade_graph.registry import Registry
    from jade_graph.settings.plain import visible

    rules = Policy.load(policy)
    if dataset is not None:
        rules = replace(rules, questions=replace(rules.questions, dataset=dataset))
    if show_policy:
        if cli.out.json:
            cli.out.result(rules.as_dict(), lambda: ())
        else:
            typer.echo(visible(rules.toml()), nl=False)  # a file, not a table: no wrapping, no markup
        return
    for name, value in (("preset", preset), ("corpus", corpus)):
        cli.put(name, value)
    registry = Registry.of(cli.settings)
    trial = None
    if not evidence and not force:
        from jade_graph.gate.promoting import contestants

        versions = contestants(registry, version)
        with cli.out.progress("comparing versions", "answers") as tick:
            trial = measure(registry, versions, cli.config, rules, limit=limit, decides=True, record=record, tick=tick)
    outcome = decide(
        registry, version, cli.config, policy=rules, evidence=evidence, trial=trial, force=force, reason=reason,
        dry_run=dry_run,
    )  # fmt: skip
    number = outcome.challenger.number
    if outcome.promotion is not None:
        told = f"Version {number} is the champion (promotion {outcome.promotion.number}). Back: jade rollback"
    elif outcome.verdict is not None and outcome.verdict.passed:
        told = f"Version {number} passes; nothing was changed (--dry-run)."
    elif outcome.verdict is None:
        told = f"Version {number} would be promoted past the gate; nothing was changed (--dry-run)."
    else:
        stays = "there is no champion still" if outcome.champion is None else "the champion stays"
        told = f"Version {number} is refused; {stays}."
    cli.out.result(outcome.as_dict(), lambda: [*shown(of_outcome(outcome)), told])
    if outcome.verdict is not None and not outcome.verdict.passed and outcome.promotion is None:
        raise typer.Exit(9)
