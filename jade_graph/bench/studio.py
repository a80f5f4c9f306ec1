"""How long the studio makes people wait: first paint of the table and of a run, and the answer to a click.

Invariant: measured in a real headless Chromium, by the page's own clock, from the start of navigation (or the press of
the button) to the frame after the content stood; medians over rounds, the first visit apart.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from jade_graph.errors import UsageError
from jade_graph.runs import tables
from jade_graph.runs.store import RunStore
from jade_graph.testing.browser import Browser, find
from jade_graph.testing.studio import serving
from jade_graph.types import Message, Run, Status, TraceNode, Transition

_PLANS = ("AG", "R,AG", "R,DS,AG", "QR,R,AG", "QR,R,DS,AG", "QDS", "QDP")
_TYPES = ("1hop", "2hop", "comparison", "context", "noisy")
_BIG = "f" * 32
# Notes the time at which the content stands, after the frame that shows it.
_WATCH = """
(() => { const look = () => { const done = document.body && (%s);
  if (done) requestAnimationFrame(() => setTimeout(() => { window.jadePainted = performance.now(); }));
  else requestAnimationFrame(look); }; look(); })()
"""
_TABLE = "document.querySelectorAll('.st-table tbody tr').length > 20"
_RUN = "document.querySelectorAll('#jade-run .jg-tree .jg-box').length > 150"


def run(*, runs: int = 100_000, nodes: int = 200, rounds: int = 7, quick: bool = False) -> dict[str, float]:
    """Figures `runs_table_paint_ms`, `run_page_paint_ms`, `click_ms` and further ones, with their sizes.

    Raises:
        UsageError: NO_CHROMIUM.
    """
    if find() is None:
        raise UsageError(
            "the studio is measured in a Chromium, and there is none here.",
            code="NO_CHROMIUM",
            hint="apt-get install chromium, or JADE_CHROMIUM=PATH",
        )
    runs, rounds = (5_000, 3) if quick else (runs, rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'runs.db'}"
        with RunStore(url) as store:
            boxes = _fill(store, runs, nodes)
            indexed = _index(store)
        with serving(folder, "--store", url) as base, Browser() as browser:
            table = [_painted(browser, f"{base}/", _TABLE) for _ in range(rounds + 1)]
            sort = [_answered(browser, i) for i in range(rounds)]
            page = [_painted(browser, f"{base}/run/{_BIG}", _RUN) for _ in range(rounds + 1)]
            click = [_clicked(browser, i, boxes) for i in range(rounds * 3)]
    return {
        "runs_table_paint_ms": round(statistics.median(table[1:]), 1),
        "run_page_paint_ms": round(statistics.median(page[1:]), 1),
        "click_ms": round(statistics.median(click), 1),
        "sort_ms": round(statistics.median(sort), 1),
        "first_visit_ms": round(table[0], 1),
        "index_s": round(indexed, 2),
        "runs": runs,
        "nodes": boxes,
        "rounds": rounds,
    }


def _painted(browser: Browser, url: str, condition: str) -> float:
    added = browser.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH % condition)
    browser.open(url)
    painted = float(browser.wait("window.jadePainted || 0"))
    browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])
    return painted


def _timed(browser: Browser, selector: str, condition: str) -> float:
    """Milliseconds from the press of the mouse to the frame that shows the answer."""
    browser.run(
        "window.jadeAnswered = 0; addEventListener('pointerdown', (e) => { const began = e.timeStamp; "
        f"const look = () => ({condition}) ? requestAnimationFrame(() => setTimeout(() => {{ "
        "window.jadeAnswered = performance.now() - began; })) : requestAnimationFrame(look); "
        "requestAnimationFrame(look); }, {once: true, capture: true})"
    )
    browser.click(selector)
    return float(browser.wait("window.jadeAnswered"))


def _answered(browser: Browser, i: int) -> float:
    """Sort the table by another column."""
    column = ("calls", "wall_ms", "f1")[i % 3]
    before = json.dumps(browser.run("document.querySelector('.st-table tbody').innerText"))
    return _timed(
        browser, f".st-table th.st-col-{column}", f"document.querySelector('.st-table tbody').innerText !== {before}"
    )


def _clicked(browser: Browser, i: int, boxes: int) -> float:
    """Select a box and wait for its details."""
    key = f"a{(i * 37 + 5) % (boxes // 2)}"
    action = int(key[1:])
    return _timed(
        browser, f'#jade-run [data-key="{key}"]', f"document.querySelector('.jv-side').innerText.includes('#{action}.')"
    )


def _index(store: RunStore) -> float:
    """Seconds that the studio takes to index the store for the first time."""
    from jade_graph.studio.index import Index

    began = time.monotonic()
    Index(store.engine).sync()
    return time.monotonic() - began


# --- a store --------------------------------------------------------------------------------------------------------
def _fill(store: RunStore, runs: int, nodes: int) -> int:
    """Many runs without actions and one with as many; returns how many boxes the latter's picture has."""
    from jade_graph.picture import lay_out

    draw = random.Random(0)
    for start in range(0, runs, 5_000):
        block = [_row(draw, i) for i in range(start, min(start + 5_000, runs))]
        with store.engine.begin() as db:
            db.execute(tables.runs.insert(), block)
    big = _big(nodes)
    store.run_started(big)
    for t in big.transitions:
        store.transition(t)
    store.trace_nodes(big.id, 0, {n.id: n for n in big.trace})
    store.run_finished(big)
    store.flush()
    return len(lay_out(big).boxes)


def _row(draw: random.Random, i: int) -> dict[str, Any]:
    right = draw.random() < 0.4
    failed = draw.random() < 0.02
    about = {"type": draw.choice(_TYPES), "answers": ["Ann Lee"]}
    run = Run(
        f"{i:032x}", f"Who directed the film number {i % 5000}, which came out in {1900 + i % 100}?", f"q{i % 5000}",
        "jade", i, "failed" if failed else "answered", answer="" if failed else "Ann Lee" if right else "Bo Kim",
        error="LIMIT_TOKENS" if failed else None, backbone_version=f"model-{i % 4}", started_at=1.7e9 + i,
        wall_ms=draw.uniform(20, 4000), metadata=about,
    )  # fmt: skip
    row = tables.run_row(run)
    return {
        **row,
        "plan": draw.choice(_PLANS),
        "calls": draw.randint(1, 12),
        "illegal_actions": int(draw.random() < 0.1),
    }


def _big(nodes: int) -> Run:
    """A run whose picture has about `nodes` boxes: parallel splits of splits, sub-questions of three actions."""
    trace: dict[str, TraceNode] = {}
    actions: list[Transition] = []
    clock = 0.0

    def act(node: str, role: str, parsed: Any, text: str, *, tool: bool = False) -> None:
        nonlocal clock
        seq = len(actions)
        ids = () if tool else tuple(range(12))
        actions.append(
            Transition(
                _BIG, "q0", 0, seq, 1, len(actions), node.count("."), role, node, role, not tool, "R,AG",
                (Message("user", f"The prompt of action #{seq}. " + "Words of a document. " * 40),),
                () if tool else tuple(range(200)), f"{text} #{seq}.", ids, (-0.2,) * len(ids), {"temperature": 1.0},
                "tool" if tool else "stop", False, parsed, True, None, False, {}, {}, 20.0, "model-0", "hash", "corpus",
                started_ms=clock, queue_ms=0 if tool else 6.0,
            )
        )  # fmt: skip
        clock += 9.0

    def split(node: str, depth: int, width: int) -> None:
        children = tuple(f"{node}.{i}" for i in range(1, width + 1))
        act(node, "PL", "QDP", "<workflow>QDP</workflow>")
        act(node, "QDP", [f"part {c}?" for c in children], "<q1>..</q1>")
        for child in children:
            if depth:
                split(child, depth - 1, 4)
            else:
                act(child, "PL", "R,AG", "<workflow>R,AG</workflow>")
                act(child, "R", {"queries": ["part?"], "documents": []}, "", tool=True)
                act(child, "AG", "Ann Lee", "<answer>Ann Lee</answer>")
            if child not in trace:
                trace[child] = TraceNode(
                    child, f"part {child}?", node, child.count("."), Status.SOLVED, "", "Ann Lee", "R,AG"
                )
        act(node, "AS", "Ann Lee", "<answer>Ann Lee</answer>")
        parent = node.rpartition(".")[0] or None
        trace[node] = TraceNode(
            node,
            f"question {node}?",
            parent,
            node.count("."),
            Status.SOLVED,
            "",
            "Ann Lee",
            "QDP",
            "parallel",
            children,
        )

    # A leaf has five boxes, a split five and its leaves: 25 + 5 at a width of four.
    split("0", 1, max(1, round((nodes - 5) / 25)))
    ordered = tuple(sorted(trace.values(), key=lambda n: tuple(map(int, n.id.split(".")))))
    return Run(
        _BIG, "A question of many parts?", "q0", "jade", 0, "answered", answer="Ann Lee", trace=ordered,
        transitions=tuple(actions), backbone_version="model-0", started_at=2.0e9, wall_ms=clock + 20,
        metadata={"type": "big", "answers": ["Ann Lee"]},
    )  # fmt: skip
