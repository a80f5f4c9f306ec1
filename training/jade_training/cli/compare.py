"""Compare joint learning with decoupled, static and no learning, with intervals.

Invariant: thin. The command parses its options, runs the arms, and writes what the report says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.errors import UsageError

if TYPE_CHECKING:
    from jade_training.improve.improver import Progress

LISTED = {"compare": ("Learn", "Joint learning against decoupled, static and none.")}
app = single()


@command(app, "compare")
def compare(
    cli: Cli,
    out: Annotated[Path, typer.Option(help="Folder of the comparison; the same goes on where it stopped.")] = Path(
        "compared"
    ),
    suite: Annotated[
        str,
        typer.Option(
            help="joint (who learns), m-ask (turn loops, credit), real (real questions), wsm (decay or merge)."
        ),
    ] = "joint",
    quick: Annotated[bool, typer.Option(help="One seed, fewer arms and updates, no sweep.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="Learning runs of each arm.")] = None,
    arms: Annotated[str | None, typer.Option(help='Some of them, by semicolons: "start;joint;static R,AG".')] = None,
    once: Annotated[str | None, typer.Option(help="Those that learn with the first seed alone.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Updates of each learning run.")] = None,
    questions: Annotated[int | None, typer.Option(min=1, help="Questions of each update; each is run 8 times.")] = None,
    first_seed: Annotated[int, typer.Option(min=0, help="Seeds are this one and those after it.")] = 0,
    backbone: Annotated[
        str | None, typer.Option(help="The start: tiny, a folder, a hub id, or models:/NAME@ALIAS.")
    ] = None,
    train: Annotated[str | None, typer.Option(help="Questions to learn from; default: the suite's.")] = None,
    dev: Annotated[str | None, typer.Option(help="Questions to pick weights with.")] = None,
    test: Annotated[str | None, typer.Option(help="Questions to report on.")] = None,
    lora: Annotated[
        int | None, typer.Option(min=1, metavar="RANK", help="Train adapters in place of all weights.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Demonstrations that hold roles which the policy seldom visits.")
    ] = None,
    sweep: Annotated[bool, typer.Option(help="Sweep the costs of turns and calls, too.")] = True,
    costs: Annotated[
        str | None, typer.Option(help="Turn costs (alpha) of the sweep, or none; default: 0,.1,.2,.3,.5.")
    ] = None,
    call_costs: Annotated[
        str | None, typer.Option(help="Costs of a call of the sweep, or none; default: .04,.06,.08.")
    ] = None,
    sweep_seeds: Annotated[int, typer.Option(min=1, help="Seeds that the sweeps take.")] = 1,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Learning runs at once, a process each; default: a core each.")
    ] = None,
    fresh: Annotated[bool, typer.Option(help="Begin again: what is in the folder is thrown away.")] = False,
) -> None:
    """Learn each arm from the same start under the same budget and report, with intervals, which claims hold.

    Arms of the suite "joint": no learning; planner only; executors only; all roles on each fixed graph; joint. Of the
    suite "m-ask": M-ASK with each turn credit, Search-R1, R,AG and JADE. Of the suite "real": smol with the stock
    presets, planner only, two fixed graphs, joint, on what jade models make has split. Of the suite "wsm": joint with a
    falling rate, a constant one, and merged checkpoints of that. Killed at any time, the same
    command goes on where it stopped.
    """
    from dataclasses import replace

    from jade_graph.settings.config import load_config
    from jade_graph.settings.manifest import manifest
    from jade_graph.sync import run_sync
    from jade_training.cli.workfolder import COMPARE, taken
    from jade_training.compare import jobs as runs
    from jade_training.compare import plots, report, turns
    from jade_training.compare.arms import all_arms, chosen, fixed_graph, suites
    from jade_training.compare.run import CompareSettings, Comparison, Price, Result
    from jade_training.improve.inputs import data_of, require_apart
    from jade_training.improve.registering import start_of
    from jade_training.improve.settings import ImproveSettings, fitted

    # A start that reads well leaves joint learning nothing to teach, and a start of one's own is meant.
    origin = load_config(config=cli.config_file, overrides=cli.overrides).origin("backbone")
    wanted = chosen(arms, quick=quick, suite=suite)
    cli.put("backbone", backbone or (suites()[suite].start if origin == "default" else None))
    about = suites()[suite]
    given = {"iterations": iterations or (QUICK_ITERATIONS if quick else None), "questions": questions}
    improve = ImproveSettings(**{**about.settings, **{k: v for k, v in given.items() if v is not None}})
    few = tuple(arm.name for arm in chosen(once, quick=quick, suite=suite)) if once else ()
    all_seeds = tuple(range(first_seed, first_seed + (seeds or (1 if quick else 3))))
    start = start_of(cli.settings)
    improve = fitted(improve, start, lora=lora or about.lora, limits=cli.config.chosen("limits"))
    settings = CompareSettings(all_seeds, improve, once=few, replay=None if replay is None else str(replay))
    if suite != "joint" and (costs or call_costs):
        raise UsageError(f"the suite {suite!r} sweeps no costs.", code="BAD_COSTS", hint="--suite joint")
    sweeps = suite == "joint" and sweep and not quick and any(arm.name == "joint" for arm in wanted)
    settings = replace(
        settings,
        costs=tuple(_numbers(costs)) if costs else settings.costs if sweeps else (),
        sweep_seeds=sweep_seeds,
        call_costs=tuple(_numbers(call_costs)) if call_costs else settings.call_costs if sweeps else (),
    )
    specs = tuple(spec or usual for spec, usual in zip((train, dev, test), about.data, strict=True))
    data = [data_of(cli.config, spec) for spec in specs]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        require_apart(data[one], data[other])
    taken(out, COMPARE, fresh=fresh)
    every = runs.jobs_of(wanted, settings)
    learning = len(every)
    at_once = min(jobs or runs.usual(start), learning)
    with cli.out.progress(f"{len(wanted)} arms", "%") as tick:
        finished = set[str]()

        def tell(what: str, p: Progress | None) -> None:
            if p is None:
                cli.out.log(what)
                return
            inside = (p.iteration + (p.done / p.of if p.of and p.phase == "rollout" else 0.0)) / p.iterations
            tick(int(100 * (len(finished) + inside)), 100 * learning, f"{what}: {p.phase} {p.iteration + 1}")
            if p.phase == "done" and p.iteration + 1 == p.iterations:
                finished.add(what)

        work = Comparison(out, start, data[0], data[1], data[2], settings, tell)
        if at_once > 1:
            shared = runs.Shared(cli.config, out, start, (specs[0], specs[1], specs[2]), settings, suite)
            runs.side_by_side(shared, every, at_once, tick)

        async def everything() -> tuple[list[Result], dict[Price, list[Result]]]:
            found = await work.run(wanted)
            if suite != "joint":
                return found, {}
            jade = all_arms()["joint"].preset
            for plan in ("QR,R,AG", "QR,R,DS,AG"):
                found.append(await work.measured(f"start {plan}", fixed_graph(jade, plan), start))
            return found, await work.sweep(all_arms()["joint"])

        results, swept = run_sync(everything())
    ceiling = run_sync(_ceiling(specs[2], "m-ask" if suite == "m-ask" else "jade"))
    command_line = "jade compare" + (f" --suite {suite}" if suite != "joint" else "") + (" --quick" if quick else "")
    command_line += (f" --seeds {seeds}" if seeds else "") + (f" --first-seed {first_seed}" if first_seed else "")
    command_line += f" --questions {questions}" if questions else ""
    command_line += (f" --iterations {iterations}" if iterations else "") + (f' --arms "{arms}"' if arms else "")
    command_line += (f' --once "{once}"' if once else "") + (f" --costs {costs}" if costs else "")
    command_line += (f" --call-costs {call_costs}" if call_costs else "") + ("" if sweep else " --no-sweep")
    command_line += f" --sweep-seeds {sweep_seeds}" if sweep_seeds > 1 else ""
    if suite != "m-ask":
        told = report.compared(wanted, results, swept)
        text = report.markdown(told, work.facts, command_line, ceiling)
    else:
        told = turns.compared(wanted, results)
        text = turns.markdown(told, work.facts, command_line, ceiling)
    (out / "report.md").write_text(text, encoding="utf-8")
    plots.curves(results, out / "curves.png")
    against = "prompt_tokens" if suite == "m-ask" else "calls"
    plots.front(told["arms"], out / "front.png", against=against, sweeps=told.get("sweep", {}))
    told = {**told, "ceiling": ceiling, "facts": work.facts, "report": str(out / "report.md")}
    told["manifest"] = manifest(seeds=settings.seeds, compare=work.facts, command=command_line)
    (out / "report.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    cli.out.result(told if suite == "m-ask" else report.summarized(told), lambda: _show(told))


def _numbers(text: str) -> list[float]:
    if text == "none":
        return []
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{text!r} are no costs.", code="BAD_COSTS", hint="0,.1,.3, or none") from None


QUICK_ITERATIONS = 12


async def _ceiling(test: str, preset: str) -> float | None:
    """F1 of the oracle in the preset's roles; None where there is no oracle."""
    if not test.startswith("microworld:"):
        return None
    from jade_graph.backbones.scripted import ScriptedBackbone
    from jade_graph.microworld import OraclePolicy, parse
    from jade_graph.microworld.search import WordSearch
    from jade_graph.scoring.evaluation import evaluate
    from jade_graph.workflow.engine import Engine

    world, questions, _ = parse(test.removeprefix("microworld:"))
    oracle = ScriptedBackbone(OraclePolicy(world, questions), version="microworld-oracle")
    rows = await evaluate(Engine(oracle, preset=preset, retriever=WordSearch(world.passages)), questions)
    return sum(r.f1 or 0.0 for r in rows) / len(rows)


def _show(told: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    kinds = sorted({kind for a in told["arms"].values() for kind in a["f1_by_kind"]})
    lines = []
    for name, a in told["arms"].items():
        low, high = a["f1"]["ci95"]
        lines.append(
            (
                name, f"{a['f1']['mean']:.3f} ±{(high - low) / 2:.3f}",
                *(f"{a['f1_by_kind'].get(k, 0.0):.2f}" for k in kinds), f"{a['calls']['mean']:.1f}",
                f"{a['routing_bits']:.2f}", f"{a['illegal_rate']['mean']:.1%}", f"{a['minutes']:.1f}",
            )
        )  # fmt: skip
    columns = ("arm", "F1", *kinds, "calls", "bits", "illegal", "min")
    shown: list[Any] = [table(columns, lines, title="F1 on the test world, greedy", right=" ".join(columns[1:]))]
    for claim in told["claims"]:
        f1 = claim["f1"]
        aim = ""
        if "aim" in claim:
            aim = f"; aim {claim['aim']:.2f}: {'holds' if claim['holds'] else 'does not hold'}"
        shown.append(
            Text(
                f"{claim.get('ours', 'joint')} - {claim['against']}: {f1['difference']:+.3f} F1 "
                f"({f1['ci95'][0]:+.3f} to {f1['ci95'][1]:+.3f}){aim}"
            )
        )
    if told["ceiling"] is not None:
        shown.append(Text(f"oracle {told['ceiling']:.3f}", style="dim"))
    shown.append(Text(f"report {told['report']}"))
    return shown
