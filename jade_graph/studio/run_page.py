"""One run, two runs side by side, and the dialog that forks.

Invariant: the picture and the details are drawn by the viewer that the exported page has too; here is what needs the
server: starting a fork, and the address, which holds the step, the box and the tab.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from nicegui import ui

from jade_graph import plugins
from jade_graph.errors import JadeError
from jade_graph.picture import facts
from jade_graph.picture.text import clean
from jade_graph.studio import feedback_panel, shell
from jade_graph.studio.registered import models
from jade_graph.studio.shared import Studio
from jade_graph.types import Run, Transition
from jade_graph.workflow.parts import Parts, limits_of
from jade_graph.workflow.replay import action_at, passages_of


def build(studio: Studio, run_id: str, query: dict[str, str]) -> None:
    """The page of one run."""
    ui.element("div").props('id="jade-run"').classes("st-run")
    options = {
        "step": int(query["step"]) if query.get("step", "").isdigit() else None,
        "select": query.get("box") or None,
        "tab": query.get("tab") if query.get("tab") in ("gantt", "topology") else "tree",
    }
    _script(f"jadeStudio.run({_js(run_id)}, {_js(options)})")
    feedback_panel.build(studio, run_id)
    ui.on("jade_fork", lambda event: _ask(studio, run_id, int(event.args["seq"])))


def build_pair(a: str, b: str) -> None:
    """Two runs side by side, with the first difference marked."""
    with ui.element("h1").classes("st-pair-question"):
        ui.element("span").props('id="jade-question"')
    ui.element("div").props('id="jade-difference" role="status"').classes("st-difference")
    with ui.element("div").classes("st-pair"):
        for name, run_id in (("jade-one", a), ("jade-other", b)):
            with ui.element("section"):
                ui.link(f"run {run_id[:8]}", f"/run/{run_id}").classes("st-pair-link")
                ui.element("div").props(f'id="{name}"').classes("st-pair-run")
    _script(f"jadeStudio.pair({_js([a, b])})")


def _js(value: Any) -> str:
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _script(code: str) -> None:
    ui.add_body_html(f"<script>{code}</script>")


# --- forking ----------------------------------------------------------------------------------------------------------
async def _ask(studio: Studio, run_id: str, seq: int) -> None:
    try:
        found, _ = await asyncio.to_thread(studio.run, run_id)
        t = action_at(found, seq)
    except JadeError as error:
        ui.notify(str(error), type="negative")
        return
    _dialog(studio, found, t, models(studio.settings, await studio.registered.soon(), found.backbone_version))


def _dialog(studio: Studio, found: Run, t: Transition, known: dict[str, str]) -> None:
    """Ask what is to be done instead, and where the new run goes on."""
    with ui.dialog(value=True) as dialog, ui.element("div").classes("st-dialog"):
        where = "the question" if t.trace_node == "0" else f"sub-question {t.trace_node[2:]}"
        _heading(f"Fork at {t.role}, {facts.name_of(t.role)}")
        ui.label(
            f"What came before action {t.seq} at {where} is replayed as it was recorded; no model is asked for it. "
            "From here on the run is live."
        ).classes("st-soft")
        ui.label("Instead of what was done").classes("st-label")
        read = _editor(found, t)
        with ui.element("div").classes("st-row"):
            with ui.element("div").classes("st-grow"):
                ui.label("Model").classes("st-label")
                backbone = shell.model_field(known, studio.settings.backbone)
            with ui.element("div"):
                ui.label("Seed").classes("st-label")
                seed = ui.input(value=str(found.seed)).props('dense outlined aria-label="Seed"')
        wrong = ui.label("").classes("st-error").props('role="alert"')

        def start() -> None:
            try:
                number = int(seed.value or 0)
            except ValueError:
                wrong.set_text(f"The seed {seed.value!r} is no whole number.")
                return
            try:
                edit = read()
                new = studio.room.fork(
                    found, at=t.seq, edit=edit, seed=number, backbone=_changed(backbone.value, studio.settings.backbone)
                )
            except (JadeError, ValueError) as error:
                wrong.set_text(str(error))
                return
            ui.navigate.to(f"/pair?a={found.id}&b={new}")

        with ui.element("div").classes("st-row st-end"):
            _plain_button("Cancel", dialog.close)
            _plain_button("Run on", start, primary=True)
    dialog.on("hide", dialog.delete)


def _editor(found: Run, t: Transition) -> Any:
    """Fields for the action; returns a function that gives `JadeGraph.afork`'s arguments."""
    documents = passages_of(t) if t.finish_reason == "tool" else None
    kind = facts.kind_of(t.role)
    # A role whose form is not known here (of a loop, of another package) is edited as the text that it writes.
    known = documents is not None or kind != "executor" or t.role in ("QR", "DS", "AG")
    modes = {**({"edit": "Do this"} if known else {}), "again": "Ask the model anew"}
    if documents is None:
        modes["text"] = "Write the action exactly"
    mode = ui.radio(modes, value="edit" if known else "text").props("inline dense")
    with ui.element("div").classes("st-edit") as box:
        get = _value(found, t, kind, documents) if known else dict
    box.bind_visibility_from(mode, "value", value="edit")
    raw = (
        ui.textarea(value=clean(t.action_text)).props('outlined autogrow dense aria-label="Action"').classes("st-wide")
    )
    raw.bind_visibility_from(mode, "value", value="text")

    def read() -> dict[str, Any]:
        if mode.value == "again":
            return {}
        return {"text": raw.value or ""} if mode.value == "text" else get()

    return read


def _value(found: Run, t: Transition, kind: str, documents: Any) -> Any:
    if documents is None and t.role == "DS":
        own = [o for o in found.transitions if o.trace_node == t.trace_node and o.seq < t.seq]
        documents = next((d for o in reversed(own) if (d := passages_of(o)) is not None), ())
        kept = set(t.parsed if isinstance(t.parsed, list) else ())
    elif documents is not None:
        kept = set(range(len(documents)))
    if documents is not None:
        boxes = []
        for i, d in enumerate(documents):
            title = clean(d.title or d.text[:80])
            boxes.append(ui.checkbox(f"Document {i}: {title}", value=i in kept).props("dense").classes("st-wide"))
        return lambda: {"documents": [i for i, b in enumerate(boxes) if b.value]}
    if kind == "planner":
        plans = _plans(found, t)
        value = str(t.parsed) if str(t.parsed) in plans else plans[0]
        chosen = ui.select(plans, value=value).props('dense outlined aria-label="Plan"').classes("st-wide")
        return lambda: {"plan": chosen.value}
    if kind == "decomposer":
        lines = "\n".join(map(str, t.parsed)) if isinstance(t.parsed, list) else ""
        area = ui.textarea(value=clean(lines)).props('outlined autogrow dense aria-label="Sub-questions, one a line"')
        area.classes("st-wide")
        return lambda: {"questions": [q for q in (area.value or "").splitlines() if q.strip()]}
    name = "query" if t.role == "QR" else "answer"
    old = t.parsed[0] if isinstance(t.parsed, list) and t.parsed else t.parsed
    field = (
        ui.input(value=clean(str(old or ""))).props(f'dense outlined aria-label="{name.title()}"').classes("st-wide")
    )
    return lambda: {name: field.value or ""}


def _plans(found: Run, t: Transition) -> list[str]:
    """The legal plans here, without those that split where the recorded depth leaves no room."""
    preset = plugins.load("jade.presets", found.preset)
    limits = limits_of(preset)
    parts = Parts(preset, limits)
    splits = {c for c, r in parts.roles.items() if r.kind == "decomposer"}
    return [str(p) for p in parts.grammar.plans if t.depth < limits.depth or not splits & set(p.steps)]


def _changed(value: str | None, default: str) -> str:
    return "" if not value or value == default else value


def _heading(text: str) -> None:
    with ui.element("h2"):
        ui.label(text)


def _plain_button(text: str, act: Any, *, primary: bool = False) -> None:
    button = ui.element("button").classes("jv-button" + (" jv-primary" if primary else "")).props('type="button"')
    button.on("click", act)
    with button:
        ui.label(text)
