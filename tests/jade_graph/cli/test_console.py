import io
import json
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.color import ColorSystem

from jade_graph.cli.console import Output, print_json, table
from jade_graph.settings.plain import jsonable, text

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@dataclass
class Pair:
    left: tuple[int, ...]
    right: object


class Kind(Enum):
    ONE = "one"


@given(plain)
def test_plain_data_stays_as_it_is(value):
    assert jsonable(value) == value
    assert json.loads(json.dumps(jsonable(value))) == value


def test_what_json_does_not_know():
    value = {
        "pair": Pair((1, 2), {Path("a/b")}),
        Kind.ONE: Kind.ONE,
        "numbers": np.array([1.5, float("nan")]),
        "one": np.float32(0.5),
        "inf": float("inf"),
        "iterator": iter([1]),
    }
    assert jsonable(value) == {
        "pair": {"left": [1, 2], "right": ["a/b"]},
        "Kind.ONE": "one",
        "numbers": [1.5, None],
        "one": 0.5,
        "inf": None,
        "iterator": [1],
    }
    with pytest.raises(TypeError, match="object has no JSON form"):
        jsonable(object())


def test_exactly_one_object_on_standard_output_and_no_call_of_the_view(capsys):
    Output(json=True).result({"a": float("nan"), "b": "ä"}, lambda: 1 / 0)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": None, "b": "ä"}
    assert captured.err == ""


def test_json_is_written_as_it_is_even_to_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    print_json({"long": "word " * 40})
    assert json.loads(capsys.readouterr().out)["long"] == "word " * 40


def test_logs_go_to_standard_error_unless_quiet(capsys):
    Output().log("[red]working")
    assert capsys.readouterr() == ("", "[red]working\n")
    Output(quiet=True).log("working")
    assert capsys.readouterr() == ("", "")
    Output(quiet=True).warn("look [red]here")
    assert capsys.readouterr() == ("", "note look [red]here\n")


def test_progress_in_a_log_is_a_line_per_tenth(capsys):
    with Output().progress("indexing", "passages") as tick:
        for done in range(101):
            tick(done, 100)
        tick(1, 2, "writing")
        tick(5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "indexing ..."
    assert lines[1:11] == [f"indexing: {done} of 100 passages" for done in (1, 10, 20, 30, 40, 50, 60, 70, 80, 90)]
    assert lines[11:] == ["indexing: 100 of 100 passages", "writing: 1 of 2 passages"]
    with Output().progress("opening", "passages") as tick:
        tick(1, 2, "embedding passages")
        tick(1, 1, "saving the corpus")
    assert capsys.readouterr().err.splitlines()[1:] == ["embedding passages: 1 of 2", "saving the corpus: 1 of 1"]
    with Output().progress("learning", "%") as tick:
        tick(130, 1000, "rollout 2 of 10")
    assert capsys.readouterr().err.splitlines()[-1] == "rollout 2 of 10: 13 %"
    with Output(quiet=True).progress("indexing") as tick:
        tick(1, 2)
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal_leaves_nothing_behind(monkeypatch):
    from rich.console import Console

    monkeypatch.setenv("TERM", "xterm-256color")  # a dumb terminal gets no bars

    output, screen = Output(), io.StringIO()
    output.__dict__["stderr"] = Console(file=screen, force_terminal=True, width=80)
    with output.progress("indexing", "passages") as tick:
        tick(3, 10)
        tick(4, label="writing")
    assert "indexing" in screen.getvalue() or "writing" in screen.getvalue()
    assert "4 of 10 passages" in screen.getvalue()


def test_tables_show_markup_in_data_as_text_and_cut_nothing(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    long = "word " * 30
    Output().result({}, lambda: table(("a", "n"), [("[red]x[/]", 1), (long, 2.5)], title="T", right="n"))
    out = capsys.readouterr().out
    assert "[red]x[/]" in out
    assert out.count("word") == 30
    assert max(map(len, out.splitlines())) <= 40


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (True, "yes"), (0.123456, "0.1235"), (1234567.0, "1,234,567"), (3, "3"), ("x", "x")],
)
def test_values_in_tables(value, shown):
    assert text(value) == shown


def test_a_result_of_several_parts_is_printed_in_order(capsys):
    Output().result({}, lambda: ["one", "two"])
    assert capsys.readouterr().out == "one\ntwo\n"


HOSTILE = "\x1b]0;owned\x07\x1b[2Jx\r\x9b31m\u202eabc\u2066\ud800[bold]not markup[/] [/]\x7f\x00"
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize("way", ["text", "rich", "table", "tree", "log", "warn", "json"])
def test_no_text_from_outside_acts_on_the_terminal(way, capsys):
    from rich.text import Text
    from rich.tree import Tree

    out = Output(json=way == "json")
    shown = {
        "text": lambda: HOSTILE,
        "rich": lambda: Text(HOSTILE, style="bold"),
        "table": lambda: table((HOSTILE,), [(HOSTILE,), (Text(HOSTILE),)], title=HOSTILE),
        "tree": lambda: Tree(Text(HOSTILE)),
    }
    if way in ("log", "warn"):
        getattr(out, way)(HOSTILE)
    else:
        out.result({HOSTILE: HOSTILE}, shown.get(way, lambda: ""))
    told = "".join(capsys.readouterr())
    assert not ACTS.search(told)
    assert "owned" in told
    assert "not markup" in told
    if way == "json":
        assert json.loads(told) == {HOSTILE: HOSTILE}
    elif way == "text":
        assert "[bold]not markup[/] [/]" in told


def test_colours_are_still_rich_s_own():
    from jade_graph.cli.console import _console

    console = _console(stderr=False)
    console.file, console._force_terminal, console._color_system = io.StringIO(), True, ColorSystem.TRUECOLOR
    console.print("[red]x[/]")
    assert console.file.getvalue() == "\x1b[31mx\x1b[0m\n"
