"""The arms of the comparison: who learns, and on which graph.

Invariant: arms differ in the preset alone, or in settings that the arm names. Start, questions, number of runs, updates
and all other hyper-parameters are shared, and roles that do not learn are served by the start, greedily.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from jade_graph import plugins
from jade_graph.errors import unknown
from jade_graph.scoring.credit import TURN_MODES
from jade_graph.types import Preset

if TYPE_CHECKING:
    from jade_training.improve.settings import ImproveSettings

EXECUTORS = frozenset({"QDS", "QDP", "QR", "DS", "AG", "AS"})


@dataclass(frozen=True, slots=True)
class Arm:
    """`learns` False: the start as it is. `fixed`: its graph is the same for every question.

    `merge`, `schedule`: of its learning run, where they are not the comparison's (see `ImproveSettings`, `PPOConfig`).
    """

    name: str
    title: str
    preset: Preset
    learns: bool = True
    fixed: bool = False
    merge: str | None = None
    schedule: Literal["constant", "linear"] | None = None

    def put(self, settings: ImproveSettings) -> ImproveSettings:
        """The comparison's settings with the arm's own."""
        if self.schedule is not None:
            settings = replace(settings, ppo=replace(settings.ppo, schedule=self.schedule))
        return settings if self.merge is None else replace(settings, merge=self.merge)


def fixed_graph(jade: Preset, graph: str) -> Preset:
    """All roles learn on one graph: a plan, and behind "/" that of a decomposition's parts ("QDS/R,DS,AG")."""
    plan, _, parts = graph.partition("/")
    name = f"static-{graph.lower().replace(',', '-').replace('/', '-')}"
    return replace(jade, name=name, title=f"static: {graph}", plan=plan, sub_plan=parts or "R,AG", limits={"depth": 1})


def turn_arms() -> Mapping[str, Arm]:
    """M-ASK in each credit mode, Search-R1, and JADE's, from one start: by name, in the order of the report."""
    jade, vanilla, asking, monolith = (
        plugins.load("jade.presets", name) for name in ("jade", "vanilla-rag", "m-ask", "search-r1")
    )
    # Actions of microworld are short; room that is kept for long ones is taken from the documents.
    monolith = replace(monolith, role_options={"SR": {"max_new_tokens": 48}})
    arms = [
        *(Arm(f"{p.name} start", f"{p.name}, no learning", p, learns=False) for p in (asking, monolith, jade)),
        *(Arm(f"m-ask {mode}", f"M-ASK, credit {mode}", replace(asking, credit=mode)) for mode in TURN_MODES),
        Arm("search-r1", "Search-R1: one role, one growing context", monolith),
        Arm("vanilla-rag", "R,AG with a trained answerer", replace(vanilla, trainable=None), fixed=True),
        Arm("jade", "JADE: planner and executors", jade),
    ]
    return {arm.name: arm for arm in arms}


def all_arms() -> Mapping[str, Arm]:
    """Every arm of the joint comparison by name, in the order of the report."""
    jade: Preset = plugins.load("jade.presets", "jade")
    planner_only = replace(jade, name="decoupled", trainable=frozenset({"PL"}))
    arms = [
        Arm("start", "no learning", jade, learns=False),
        Arm("decoupled", "planner only, executors frozen", planner_only),
        Arm("executors", "executors only, planner frozen", replace(jade, name="executors", trainable=EXECUTORS)),
        *(
            Arm(f"static {graph}", f"static joint on {graph}", fixed_graph(jade, graph), fixed=True)
            for graph in ("R,AG", "QR,R,AG", "QR,R,DS,AG", "QDS/R,AG", "QDS/R,DS,AG")
        ),
        Arm("joint", "JADE: planner and executors", jade),
    ]
    return {arm.name: arm for arm in arms}


MICROWORLDS = ("microworld:train?n=2000", "microworld:validation?n=140", "microworld:test?n=400")
REAL_DATA = ("smol/data/train", "smol/data/dev", "smol/data/test")
"""As `jade models make` leaves them."""
REAL: Mapping[str, Any] = {"iterations": 10, "questions": 8, "runs_per_question": 4, "evaluate_every": 5}
QUICK = ("start", "decoupled", "static R,AG", "static QR,R,DS,AG", "static QDS/R,DS,AG", "joint")


@dataclass(frozen=True, slots=True)
class Suite:
    """A set of arms that one report compares, with what they share.

    Attributes:
        start: the bundled model to start from.
        quick: arms of the quick comparison.
        settings: of `ImproveSettings`, where they differ from its defaults.
        data: what is learned from, chosen with and reported on, where nothing else is named.
        lora: rank of adapters that learn in place of all weights.
    """

    name: str
    arms: Mapping[str, Arm]
    start: str
    quick: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: tuple[str, str, str] = MICROWORLDS
    lora: int | None = None


def real_arms() -> Mapping[str, Arm]:
    """The stock presets as the start plays them, and what learns on real questions; in the order of the report."""
    mmoa, vanilla = (plugins.load("jade.presets", name) for name in ("mmoa-rag", "vanilla-rag"))
    usual = all_arms()
    measured = [
        Arm("vanilla-rag", "R,AG, no learning", vanilla, learns=False),
        Arm("mmoa-rag", "QR,R,DS,AG, no learning", mmoa, learns=False),
    ]
    names = ("start", "decoupled", "static R,AG", "static QDS/R,AG", "joint")
    return {arm.name: arm for arm in (*measured, *(usual[name] for name in names))}


def merging_arms() -> Mapping[str, Arm]:
    """Joint learning whose rate decays, or stays and is merged instead, or stays (docs/methods/wsm.md)."""
    usual = all_arms()
    stays = replace(usual["joint"], schedule="constant")
    arms = [
        usual["start"],
        replace(stays, name="constant", title="joint, constant rate, last weights"),
        replace(stays, name="merged mean", title="joint, constant rate, mean of the last 8", merge="linear:8"),
        replace(stays, name="merged 1-sqrt", title="joint, constant rate, 1-sqrt of the last 8", merge="1-sqrt:8"),
        replace(usual["joint"], title="joint, rate falling to a tenth"),
    ]
    return {arm.name: arm for arm in arms}


def suites() -> Mapping[str, Suite]:
    """By name: "joint", whether joint learning is worth it; "m-ask", turn loops and their credit; "real", joint
    learning on real questions; "wsm", a falling rate against merged checkpoints.
    """
    turned = turn_arms()
    # A cost of calls would fall on the last action of a turn-credited run, and on none of those that made the calls.
    shared = {"call_cost": 0.0, "iterations": 12, "questions": 12, "evaluate_every": 4}
    return {
        "joint": Suite("joint", all_arms(), "tiny-hasty", QUICK),
        "m-ask": Suite("m-ask", turned, "tiny-ask", ("m-ask start", "m-ask turn", "vanilla-rag"), shared),
        "wsm": Suite("wsm", merging_arms(), "tiny-hasty", ("start", "merged mean", "joint")),
        "real": Suite("real", real_arms(), "smol", ("start", "vanilla-rag", "joint"), REAL, REAL_DATA, lora=16),
    }


def chosen(names: str | None, *, quick: bool, suite: str = "joint") -> list[Arm]:
    """Arms of a suite by their names, separated by semicolons ("static R,AG" holds a comma); None: the usual ones.

    Raises:
        UsageError: UNKNOWN_ARM, UNKNOWN_SUITE.
    """
    known = suites()
    if suite not in known:
        raise unknown("suite", suite, known, code="UNKNOWN_SUITE")
    arms = known[suite].arms
    wanted = [n.strip() for n in names.split(";")] if names else list(known[suite].quick if quick else arms)
    for name in wanted:
        if name not in arms:
            raise unknown("arm", name, arms, code="UNKNOWN_ARM")
    return [arm for name, arm in arms.items() if name in wanted]
