"""What every page has: the bar with the views, the theme, the style sheet.

Invariant: everything is served from this machine. Text that is shown goes through NiceGUI's labels or `textContent`,
never through `ui.html` or `ui.markdown`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

from nicegui import ui

from jade_graph.picture.svg import asset

ASSETS = Path(__file__).parent / "assets"
VIEWS = (("Runs", "/"), ("Ask", "/ask"), ("Compare", "/compare"), ("Learning", "/learning"), ("Corpus", "/corpus"))


@cache
def style() -> str:
    own = (ASSETS / "studio.css").read_text(encoding="utf-8")
    return asset("picture.css") + asset("viewer.css") + own + (ASSETS / "look.css").read_text(encoding="utf-8")


@cache
def script() -> str:
    return asset("viewer.js") + "".join(
        (ASSETS / name).read_text(encoding="utf-8") for name in ("look.js", "studio.js")
    )


@contextmanager
def frame(title: str, active: str) -> Iterator[None]:
    """A page with the bar on top."""
    ui.page_title(f"{title} · JADE Studio" if title else "JADE Studio")
    ui.add_head_html('<link rel="stylesheet" href="/assets/studio.css">')
    ui.add_head_html('<script src="/assets/studio.js"></script>')
    ui.query("body").classes("jg-theme jg-themed")
    ui.query(".nicegui-content").classes("st-content")
    with ui.element("header").classes("st-bar-top"):
        ui.link("JADE Studio", "/").classes("st-brand")
        with ui.element("nav").props('aria-label="Views"'):
            for name, where in VIEWS:
                link = ui.link(name, where).classes("st-nav")
                if name == active:
                    link.props('aria-current="page"')
        theme = ui.element("button").classes("jv-button st-theme").props('type="button" aria-label="Light or dark"')
        theme.on("click", js_handler="() => jadeTheme.flip()")
        with theme:
            ui.label("Light / dark")
    with ui.element("main").classes("st-main"):
        yield


def empty(title: str, told: str, command: str = "") -> None:
    """An empty state: what is not there, and what to do next."""
    with ui.element("div").classes("st-empty"):
        ui.label(title).classes("st-empty-title")
        ui.label(told)
        if command:
            ui.label(command).classes("st-command")


def model_field(known: Mapping[str, str], value: str) -> ui.input:
    """Any model's name, with a list of those that are known to set it from."""
    field = ui.input(value=value).props('dense outlined aria-label="Model"').classes("st-wide st-model")
    with (
        field.add_slot("append"),
        ui.button(icon="arrow_drop_down").props('flat dense round size=sm color=grey aria-label="Known models"'),
        ui.menu().props('auto-close max-height=320px anchor="bottom right" self="top right"').classes("st-models"),
    ):
        for name, told in known.items():
            ui.menu_item(told, on_click=lambda name=name: field.set_value(name))
    return field


def url(path: str, query: Mapping[str, str]) -> str:
    kept = {k: v for k, v in query.items() if v}
    return path + (f"?{urlencode(kept)}" if kept else "")


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
