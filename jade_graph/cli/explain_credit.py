"""`jade explain-credit`: where the number of each action of a recorded run came from.

Invariant: it reads. Nothing is run again, and nothing is written into the store.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.errors import DataError, StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jade_graph.scoring.rewards import RewardSpec, Scored
    from jade_graph.types import Question, Run, Transition

app = single()
DEFAULT_MODE = "terminal_gae"
_SQLITE = "sqlite:///"


@command(app, "explain-credit")
def explain_credit(
    cli: Cli,
    run: Annotated[str, typer.Argument(help="A run's id, or the beginning of it; last: the newest.")] = "last",
    store: Annotated[str | None, typer.Option(metavar="URL", help="Run store; default: the setting store.url.")] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="broadcast, terminal_gae, split, turn_delta, turn, return_to_go or final; default: the preset's."
        ),
    ] = None,
    gamma: Annotated[float, typer.Option(help="Discount, for terminal_gae.")] = 1.0,
    lam: Annotated[float, typer.Option(help="Lambda of GAE, for terminal_gae.")] = 1.0,
    inherit_penalties: Annotated[
        bool, typer.Option("--inherit-penalties", help="Earlier actions share in later penalties (terminal_gae).")
    ] = False,
    outcome: Annotated[str | None, typer.Option(help="Performance term: f1, em, f1-yes-no ..")] = None,
    alpha: Annotated[float | None, typer.Option(help="Turn cost; default: the preset's.")] = None,
    beta: Annotated[float | None, typer.Option(help="Retrieval cost; default: the preset's.")] = None,
    call_cost: Annotated[float | None, typer.Option(help="Cost of each call.")] = None,
    token_cost: Annotated[float | None, typer.Option(help="Cost of 1,000 tokens.")] = None,
    cost_form: Annotated[str | None, typer.Option(help="Of the turn cost: paper, or code (first turn free).")] = None,
    penalty: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=VALUE", help="Format penalty, *=-1 for any role; repeatable.")
    ] = None,
    gold: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="A gold answer; may be repeated.")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="SPEC", help="Take the gold answers from here.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a data-set folder with several: dev, test ..")] = None,
) -> None:
    """Show how a recorded run is rewarded, and which action gets how much of it.

    A run of a learning run is explained by the reward that it was learned from, its compression included, unless an
    option says otherwise. Gold answers come from --gold, else from --dataset, else from what was recorded with the run.
    """
    from jade_graph.scoring.credit import assign

    cli.put("store.url", store)
    found, peers = _recorded(cli.settings.store_url, run)
    preset = _preset(found)
    chosen = mode or (preset.credit if preset else DEFAULT_MODE)
    given = {
        "outcome": outcome,
        "alpha": alpha,
        "beta": beta,
        "call_cost": call_cost,
        "token_cost": token_cost,
        "cost_form": cost_form,
        "penalties": _penalties(penalty),
    }
    spec, spec_from = _spec(found, preset, {name: value for name, value in given.items() if value is not None})
    question, origin = _question(found, gold, dataset, split)
    scored, compression = _scored(found, peers, question, spec)
    rows = assign(found, scored, mode=chosen, gamma=gamma, lam=lam, inherit_penalties=inherit_penalties)
    options = {"mode": chosen, "gamma": gamma, "lam": lam, "inherit_penalties": inherit_penalties}
    result = {
        "run": found.id,
        "question_id": found.question_id,
        "question": found.question,
        "preset": found.preset,
        "status": found.status,
        "answer": found.answer,
        "golds": list(question.answers),
        "golds_from": origin,
        **options,
        "spec": spec,
        "spec_from": spec_from,
        "compression": compression,
        "scored": scored.outcome is not None,
        "why_unscored": _why_unscored(found, question, spec) if scored.outcome is None else None,
        "outcome": scored.outcome,
        "outcome_total": scored.outcome_total,
        "total": scored.total,
        "actions": [_action(t) for t in sorted(rows, key=lambda t: (t.round, t.step, t.seq))],
        "turns": _turns(found, scored),
        "adds_up": _adds_up(scored, rows, options),
    }
    cli.out.result(result, lambda: _show(result))


# --- what is looked at ------------------------------------------------------------------------------------------------
def _recorded(where: str | Path, wanted: str) -> tuple[Run, list[Run]]:
    """The run, and the runs of the same question in its rollout where its reward depends on them."""
    from jade_graph.runs.filters import RunFilter
    from jade_graph.runs.store import RunStore
    from jade_graph.scoring.learned import compression_of, needs_peers

    missing = StoreError("no run is recorded yet.", code="RUN_NOT_FOUND", hint='jade ask "a question"')
    local = str(where).removeprefix(_SQLITE)
    if "://" not in local and not Path(local).exists():  # to look must not make a store
        raise missing
    with RunStore(where) as store:
        if wanted == "last":
            newest = store.list_runs(limit=1)
            if not newest:
                raise missing
            wanted = str(newest[0]["id"])
        found = store.get(wanted)
        rollout = found.metadata.get("rollout")
        if not needs_peers(compression_of(found)) or not isinstance(rollout, str):
            return found, [found]
        others = store.iter_runs(RunFilter(question_id=found.question_id), rollout=rollout)
        return found, [found, *(other for other in others if other.id != found.id)]


def _preset(run: Run) -> Any:
    """The preset of the run; None for a run of something that is no installed preset."""
    from jade_graph import plugins

    return plugins.load("jade.presets", run.preset) if run.preset in plugins.names("jade.presets") else None


def _spec(run: Run, preset: Any, given: Mapping[str, Any]) -> tuple[RewardSpec, str]:
    """The reward, and where it comes from."""
    from dataclasses import replace

    from jade_graph.scoring.learned import reward_of
    from jade_graph.scoring.rewards import RewardSpec

    learned = reward_of(run)
    if learned is not None:
        return replace(learned, **given), "the learning run" if not given else "the learning run, and options"
    if preset is None:
        return RewardSpec(**given), "options" if given else "default"
    return RewardSpec.of_preset(preset, **given), "the preset" if not given else "the preset, and options"


def _scored(
    run: Run, peers: Sequence[Run], question: Question, spec: RewardSpec
) -> tuple[Scored, dict[str, Any] | None]:
    """What the run earned, with what it paid for its length where it was learned to be short."""
    from jade_graph.scoring.learned import compression_of
    from jade_graph.scoring.rewards import score_run

    scored = score_run(run, question, spec)
    compression = compression_of(run)
    if compression is None:
        return scored, None
    # Of the others the lengths alone count.
    return compression.scored(peers, {run.id: scored})[run.id], compression.as_dict()


def _penalties(given: Sequence[str] | None) -> dict[str, float] | None:
    if not given:
        return None
    out: dict[str, float] = {}
    for item in given:
        role, _, value = item.partition("=")
        try:
            out[role.strip()] = float(value)
        except ValueError:
            raise UsageError(
                f"{item!r} is no penalty: ROLE=VALUE is needed.", code="REWARD_SPEC", hint="--penalty DS=-0.5"
            ) from None
    return out


def _question(
    run: Run, golds: Sequence[str] | None, dataset: str | None, split: str | None
) -> tuple[Question, str | None]:
    """The question with its gold answers, and where those came from (None: there are none)."""
    from jade_graph.types import Question

    if golds:
        return Question(run.question_id, run.question, tuple(golds)), "--gold"
    if dataset is not None:
        return _in_dataset(run, dataset, split), "--dataset"
    recorded = run.metadata.get("answers") or ()
    answers = (recorded,) if isinstance(recorded, str) else tuple(map(str, recorded))
    return Question(run.question_id, run.question, answers), "the run" if answers else None


def _in_dataset(run: Run, dataset: str, split: str | None) -> Question:
    from jade_graph.data import load_dataset

    data = load_dataset(dataset, split=split)
    for question in data.questions:
        if question.id == run.question_id if run.question_id else question.question == run.question:
            return question
    what = f"the id {run.question_id!r}" if run.question_id else f"the text {run.question!r}"
    raise DataError(
        f"{data.name!r} has no question with {what}, which run {run.id!r} answers.",
        code="CREDIT_QUESTION",
        hint="--gold TEXT",
    )


# --- what is said -----------------------------------------------------------------------------------------------------
def _action(t: Transition) -> dict[str, Any]:

    why_not = "tool" if t.finish_reason == "tool" else t.error or (None if t.agent_trainable else "frozen")
    return {
        "seq": t.seq,
        "round": t.round,
        "step": t.step,
        "trace_node": t.trace_node,
        "role": t.role,
        "action": t.action_text,
        "violation": t.violation,
        "learns": t.learns,
        "learns_not": None if t.learns else why_not or "no tokens",
        "terms": dict(t.rewards),
        "reward": t.reward,
        "value": t.value,
        "return": t.return_,
        "advantage": t.advantage,
        "done": t.done,
    }


def _turns(run: Run, scored: Scored) -> list[dict[str, Any]]:
    """What each round did to the predicted answer; empty where no action predicts one."""
    from jade_graph.scoring.credit import turns

    if not scored.answers or scored.outcome is None:
        return []
    texts = {t.round: t.predicted for t in sorted(run.transitions, key=lambda t: t.seq) if t.seq in scored.answers}
    performance = next(iter(scored.outcome.values()))
    return [
        {"round": t.round, "answer": texts.get(t.round), "before": t.before, "after": t.after, "gain": t.gain}
        for t in turns(run, performance, scored.answers)
    ]


def _why_unscored(run: Run, question: Question, spec: RewardSpec) -> str:
    if run.status == "running":
        return "the run has not ended."
    if not question.answers:
        return "no gold answer is known; name one with --gold TEXT, or --dataset SPEC."
    return f"the reward {spec.outcome!r} (or one beside it) cannot score this run."


def _adds_up(scored: Scored, rows: Sequence[Transition], options: Mapping[str, Any]) -> str:
    """One line: how the numbers of the actions come from the run's terms."""
    learning = sorted((t for t in rows if t.reward is not None), key=lambda t: t.seq)
    if scored.outcome is None:
        return "no action has a reward, and the learner leaves the run out."
    head = f"outcome {_number(scored.outcome_total)} = {_sum(scored.outcome)}"
    if not learning:
        return f"{head}; no action of this run learns."
    n, mode = len(learning), options["mode"]
    if mode == "broadcast":
        tail = f"each of the {n} learning actions gets all of it, plus its own penalty"
    elif mode == "split":
        tail = f"each of the {n} learning actions gets 1/{n} of it, plus its own penalty"
    elif mode == "turn_delta":
        name = next(iter(scored.outcome))
        by_round = {t.round: t.rewards[name] for t in learning}
        deltas = ", ".join(f"{_number(delta)} in round {r}" for r, delta in sorted(by_round.items()))
        tail = f"{name} changes by {deltas}; every action of a round gets its change, the last one the costs too"
    elif mode == "final":
        tail = f"each of the {n} learning actions gets {next(iter(scored.outcome))}, an illegal one its penalty instead"
    elif mode in ("turn", "return_to_go"):
        later = " and of those after it" if mode == "return_to_go" else ""
        tail = (
            f"an action that predicts an answer gets its score, the others the gain of their turn{later}, "
            "an illegal one its penalty instead"
        )
    elif mode != "terminal_gae":
        tail = f"{n} actions learn by {mode}"
    elif options["inherit_penalties"]:
        tail = f"it enters at action {learning[-1].seq}, penalties at their own; all flow back by {_decay(options)}"
    else:
        tail = (
            f"it enters at action {learning[-1].seq} and flows back by {_decay(options)}; penalties stay at their own"
        )
    return f"{head}; {tail}. Advantage = return - V{_plus(options)}, and V = 0 here: the learner puts in its own."


def _plus(options: Mapping[str, Any]) -> str:
    own = options["mode"] == "terminal_gae" and not options["inherit_penalties"]
    return " + own penalty" if own else ""


def _decay(options: Mapping[str, Any]) -> str:
    return f"gamma x lambda = {_number(options['gamma'] * options['lam'])} per action"


def _sum(terms: Mapping[str, float]) -> str:
    from jade_graph.scoring.rewards import COSTS

    signs = ["-" if value < 0 or name in COSTS else "+" for name, value in terms.items()]
    signed = [f"{sign} {name} {_number(abs(terms[name]))}" for sign, name in zip(signs, terms, strict=True)]
    return " ".join(signed).removeprefix("+ ")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 4) + 0.0:g}"  # + 0.0: no "-0"


def _show(result: Mapping[str, Any]) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    golds = " | ".join(result["golds"])
    head = Text.assemble(
        ("run ", "dim"),
        (result["run"][:12], "bold"),
        f"  {result['preset']}  {result['status']}  ",
        (f"{result['mode']}, gamma {result['gamma']:g}, lambda {result['lam']:g}", "dim"),
        (f"  reward of {result['spec_from']}" if result["spec_from"].startswith("the ") else "", "dim"),
    )
    asked = Text.assemble((result["question"], "bold"), ("  → ", "dim"), (result["answer"] or "no answer", "green"))
    wanted = Text.assemble(("gold  ", "dim"), golds, (f"  (from {result['golds_from']})", "dim")) if golds else None
    columns = ("round", "node", "#", "role", "action", "terms", "reward", "return", "advantage")
    starts = _starts(result["actions"])
    out = table(columns, [_cells(a, first) for a, first in starts], right="# reward return advantage")
    for row, (_, first) in zip(out.rows, starts[1:], strict=False):
        row.end_section = first
    lines: list[Any] = [head, asked, *([wanted] if wanted else []), out, *_drawn(result["turns"])]
    if not result["scored"]:
        lines.append(Text.assemble(("unscored: ", "bold yellow"), result["why_unscored"]))
    return [*lines, Text(result["adds_up"])]


def _drawn(turns: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The rounds from top to bottom, each reached by an edge that says what it gained."""
    from rich.text import Text

    lines: list[Any] = []
    for turn in turns:
        gain = turn["gain"]
        style = "green" if gain > 0 else "red" if gain < 0 else "dim"
        edge = Text.assemble(("   │ ", "dim"), (f"{gain:+.3g}", style))
        said = (turn["answer"], "") if turn["answer"] is not None else ("no new answer", "dim")
        lines += [
            edge,
            Text.assemble(("   ▼ ", "dim"), f"round {turn['round']}  ", (f"{_number(turn['after'])}  ", "bold"), said),
        ]
    return lines


def _starts(actions: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], bool]]:
    """The actions, each with whether it is the first of its round."""
    return [(a, i == 0 or a["round"] != actions[i - 1]["round"]) for i, a in enumerate(actions)]


def _cells(a: Mapping[str, Any], first: bool) -> tuple[Any, ...]:
    from rich.text import Text

    place = (str(a["round"]), a["trace_node"]) if first else ("", "")
    text = " ".join(a["action"].split())
    text = text if len(text) <= 48 else text[:47] + "…"
    action = Text(text)
    if a["violation"]:
        action.append(f"  {a['violation']}", style="red")
    if not a["learns"]:
        return (*place, str(a["seq"]), a["role"], action, Text(a["learns_not"], style="dim"), "", "", "")
    terms = "  ".join(f"{name} {value:+.3g}" for name, value in a["terms"].items())
    numbers = (_number(a[name]) for name in ("reward", "return", "advantage"))
    return (*place, str(a["seq"]), a["role"], action, terms, *numbers)
