"""Below a run: whether its answer helped, and which passage did.

Invariant: what is said is kept as any other user's word is (`feedback.of_run`), under the name "studio"; nothing is
asked before the run has ended. A thumb can be turned; a passage that helped stays one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nicegui import ui

from jade_graph.errors import JadeError
from jade_graph.feedback.of_run import take
from jade_graph.picture.text import clean
from jade_graph.runs import feedback
from jade_graph.studio.shared import Studio
from jade_graph.types import Run

SOURCE = "studio"
_LOOK_S = 1.0
_TITLE = 90


def build(studio: Studio, run_id: str) -> None:
    """An empty place that is filled once the run has ended."""
    place = ui.element("section").props('aria-label="Feedback on this run"').classes("st-feedback")

    async def look() -> None:
        try:
            run, said = await asyncio.to_thread(_read, studio, run_id)
        except JadeError:
            return  # not begun yet, or none: the page itself says which
        if run.status != "running":
            timer.deactivate()
            with place:
                _Panel(studio, run, said)

    timer = ui.timer(_LOOK_S, look, immediate=True)


def _read(studio: Studio, run_id: str) -> tuple[Run, list[feedback.Feedback]]:
    run = studio.store.get(run_id)
    with studio.store.engine.connect() as db:
        found = feedback.of_runs(db, [run.id]).get(run.id, [])
    return run, [each for each in found if each.source == SOURCE]


class _Panel:
    def __init__(self, studio: Studio, run: Run, said: list[feedback.Feedback]) -> None:
        self.studio, self.run = studio, run
        ratings = [each.rating for each in said if each.rating is not None]
        used = {document for each in said for document in each.used}
        with ui.element("div").classes("st-thumbs"):
            ui.label("Did this answer help?").classes("st-soft")
            self.thumbs = {
                rating: _button(text, name, self._rate(rating), pressed=bool(ratings) and ratings[-1] == rating)
                for rating, text, name in (
                    (1.0, "Yes", "Yes, this answer helped"),
                    (-1.0, "No", "No, this answer did not help"),
                )
            }
            for rating, thumb in self.thumbs.items():
                thumb.classes("st-thumb st-up" if rating > 0 else "st-thumb st-down")
            self.told = ui.label("").classes("st-soft").props('role="status"')
        if run.documents:
            with ui.element("details").classes("st-passages"):
                with ui.element("summary"):
                    ui.label("Which passage helped?")
                with ui.element("ol"):
                    for rank, document in enumerate(run.documents, 1):
                        title = clean(document.title or document.text)[:_TITLE] or document.id
                        with ui.element("li"):
                            name = f"Passage {rank} helped: {title}"
                            button = _button("Helped", name, None, pressed=document.id in used)
                            button.on("click", self._helped(document.id, button))
                            ui.label(title)

    def _rate(self, rating: float) -> Callable[[], object]:
        async def rate() -> None:
            if await self._say(feedback.Feedback(self.run.id, rating, source=SOURCE)):
                for each, thumb in self.thumbs.items():
                    _press(thumb, each == rating)

        return rate

    def _helped(self, document: str, button: ui.element) -> Callable[[], object]:
        async def helped() -> None:
            said = feedback.Feedback(self.run.id, clicked=(document,), used=(document,), source=SOURCE)
            if await self._say(said):
                _press(button, True)

        return helped

    async def _say(self, said: feedback.Feedback) -> bool:
        try:
            await asyncio.to_thread(take, self.studio.store.engine, self.run, said)
        except JadeError as error:
            self.told.set_text(str(error))
            return False
        self.told.set_text("Kept.")
        return True


def _button(text: str, name: str, act: Callable[[], object] | None, *, pressed: bool) -> ui.element:
    """A button with a name that says what it is of; names hold any text, so they are set and not parsed."""
    button = ui.element("button").classes("jv-button").props('type="button"')
    button.props["aria-label"] = name
    _press(button, pressed)
    if act is not None:
        button.on("click", act)
    with button:
        ui.label(text)
    return button


def _press(button: ui.element, pressed: bool) -> None:
    button.props["aria-pressed"] = "true" if pressed else "false"
    button.classes(add="jv-primary" if pressed else "", remove="" if pressed else "jv-primary")
