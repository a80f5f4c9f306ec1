"""An answer on the terminal while it is written."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from jade_graph.cli.console import Output
from jade_graph.cli.living import living
from jade_graph.types import Event


def output(*, terminal: bool = True, **options: bool) -> tuple[Output, io.StringIO]:
    written, out = io.StringIO(), Output(**options)
    out.__dict__["stderr"] = Console(
        file=written, force_terminal=terminal, width=80, color_system=None, _environ={"TERM": "xterm"}
    )
    return out, written


def test_an_answer_is_shown_as_it_comes_and_gone_in_the_end() -> None:
    out, written = output()
    with living(out) as heard:
        assert heard["tokens"] is True
        for text in ("Ann", " Le\x1be"):
            heard["on_event"](Event("token", "run", text=text))
        heard["on_event"](Event("trace", "run"))
        seen = written.getvalue()
        assert "Ann Le\u241be" in seen  # what would act on the terminal is shown as a sign
        heard["on_event"](Event("retract", "run"))
        heard["on_event"](Event("token", "run", text="Bo"))
        assert "Bo" in written.getvalue()[len(seen) :]
        assert "Ann" not in written.getvalue()[len(seen) :]
    assert written.getvalue().rindex("\x1b[2K") > written.getvalue().rindex("Bo")  # the line is wiped


@pytest.mark.parametrize("options", [{"terminal": False}, {"json": True}, {"quiet": True}])
def test_where_nobody_would_see_it_nothing_is_asked_for(options: dict[str, bool]) -> None:
    out, written = output(**options)
    with living(out) as heard:
        assert heard == {}
    assert written.getvalue() == ""
