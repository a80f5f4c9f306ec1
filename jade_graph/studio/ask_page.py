"""Ask: a question, and how it is to be answered.

Invariant: the page starts the run and goes to it; it waits for nothing.
"""

from __future__ import annotations

import asyncio

from nicegui import ui

from jade_graph import plugins
from jade_graph.backbones.folders import BUNDLED
from jade_graph.errors import JadeError
from jade_graph.picture.text import clean
from jade_graph.studio import shell
from jade_graph.studio.registered import models
from jade_graph.studio.shared import Studio
from jade_graph.workflow.parts import Parts, limits_of


async def build(studio: Studio, query: dict[str, str]) -> None:
    s = studio.settings
    presets = plugins.names("jade.presets")
    corpora = list(dict.fromkeys([*await asyncio.to_thread(studio.corpora), s.corpus]))
    known_models = models(s, await studio.registered.soon())
    with ui.element("section").classes("st-form"):
        with ui.element("h1"):
            ui.label("Ask a question")
        if studio.index.apart:
            told = "This run store cannot be written: its runs can be seen and compared, and none can be started."
            ui.label(told).classes("st-error")
        question = ui.textarea(value=query.get("question", "")).classes("st-wide")
        question.props('outlined autogrow autofocus aria-label="Question" placeholder="Your question"')
        with ui.element("div").classes("st-fields"):
            with _field("Method"):
                chosen = query.get("preset") if query.get("preset") in presets else s.preset
                preset = ui.select(presets, value=chosen).props('dense outlined aria-label="Method"')
            with _field("Plan"):
                plan = ui.select(_plans(chosen or s.preset), value="").props('dense outlined aria-label="Plan"')
            with _field("Corpus"):
                name = query.get("corpus") if query.get("corpus") in corpora else s.corpus
                corpus = ui.select(corpora, value=name).props('dense outlined aria-label="Corpus"')
            with _field("Model"):
                backbone = shell.model_field(known_models, query.get("backbone") or s.backbone)
            with _field("Seed"):
                seed = ui.input(value=query.get("seed") or str(s.seed)).props('dense outlined aria-label="Seed"')
        wrong = ui.label("").classes("st-error").props('role="alert"')

        def start() -> None:
            try:
                new = studio.room.ask(
                    question.value or "",
                    backbone=str(backbone.value or "") if backbone.value != s.backbone else "",
                    preset=str(preset.value) if preset.value != s.preset else "",
                    corpus=str(corpus.value) if corpus.value != s.corpus else "",
                    plan=str(plan.value or ""),
                    seed=int(seed.value or 0),
                )
            except (JadeError, ValueError) as error:
                wrong.set_text(str(error))
                return
            ui.navigate.to(f"/run/{new}")

        preset.on_value_change(lambda e: plan.set_options(_plans(str(e.value)), value=""))
        button = ui.element("button").classes("jv-button jv-primary st-ask").props('type="button"')
        button.on("click", start)
        with button:
            ui.label("Ask")
        if s.backbone in BUNDLED:
            ui.label(
                "The bundled model reads the invented microworld alone; jade microworld show prints questions that it "
                "knows. Any other model answers questions about your documents."
            ).classes("st-soft")
        known = await asyncio.to_thread(studio.index.questions, 4)
        if known:
            ui.label("Asked before").classes("st-label")
            with ui.element("div").classes("st-try"):
                for text in known:
                    again = ui.element("button").classes("st-try-one").props('type="button"')
                    again.on("click", lambda _, text=text: question.set_value(text))
                    with again:
                        ui.label(clean(text))


def _plans(preset: str) -> dict[str, str]:
    """What may be forced on the question, for a method that plans."""
    try:
        found = plugins.load("jade.presets", preset)
        parts = Parts(found, limits_of(found))
    except JadeError:
        return {"": "the method's own"}
    if parts.planner is None:
        return {"": f"fixed: {parts.plan}"}
    return {"": "the planner writes it", **{str(p): str(p) for p in parts.grammar.plans}}


def _field(label: str) -> ui.element:
    with ui.element("div") as field:
        ui.label(label).classes("st-label")
    return field
