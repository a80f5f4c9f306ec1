"""What the terminal shows at 80 and at 120 columns: nothing is wider, no name is cut, every row keeps its label."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from jade_graph.cli.app import PANELS, app
from jade_graph.cli.console import Output, table

WIDTHS = (80, 120)
LONG = "answer " * 43  # 301 characters


def commands(command: Any, path: tuple[str, ...] = (), parent: Any = None):
    """Every command with its path, groups too."""
    context = command.make_context(path[-1] if path else "jade", [], parent=parent, resilient_parsing=True)
    real = context.command
    yield path, real, context
    for name in real.list_commands(context) if hasattr(real, "list_commands") else ():
        yield from commands(real.get_command(context, name), (*path, name), context)


EVERY = [(path, command, context) for path, command, context in commands(get_command(app))]


def printed(capsys, monkeypatch, width: int, shown: Any) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    capsys.readouterr()
    Output().result({}, lambda: shown)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("path", "command", "context"), EVERY, ids=[" ".join(path) or "jade" for path, _, _ in EVERY])
def test_help_cuts_no_name(jade, monkeypatch, width, path, command, context):
    monkeypatch.setenv("COLUMNS", str(width))
    done = jade(*path, "--help")
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= width
    assert "…" not in done.out
    words = set(re.findall(r"[\w-]+", done.out))
    for parameter in command.get_params(context):
        if not getattr(parameter, "hidden", False):
            assert {name.lstrip("/") for name in parameter.opts} <= words | {parameter.name}
    assert set(command.list_commands(context) if hasattr(command, "list_commands") else ()) <= words


def test_commands_stand_in_panels_by_task(jade):
    shown = re.findall(r"╭─ (.+?) ─", jade("--help").out)
    assert [name for name in shown if name in PANELS] == list(PANELS)
    assert "More commands" not in shown
    assert {"Rolling out", "Reward and credit", "The update", "Evaluating"} <= set(
        re.findall(r"╭─ (.+?) ─", jade("improve", "--help").out)
    )


@pytest.mark.parametrize("width", [40, *WIDTHS])
def test_every_row_of_a_wide_table_keeps_its_label(capsys, monkeypatch, width):
    kinds = [f"kind{i}" for i in range(12)]
    rows = [("first model", "jade", *["0.812 ±.061"] * 12), ("second model", "mmoa-rag", *["-"] * 12)]
    lines = printed(capsys, monkeypatch, width, table(("model", "method", *kinds), rows, right=" ".join(kinds)))
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert all(kind in text for kind in kinds)
    parts = text.count("method")
    assert parts == text.count("mmoa-rag") == sum("second" in line for line in lines)
    assert parts > 1 or width > 120
    assert text.count("0.812 ±.061") == 12


@given(
    columns=st.lists(st.sampled_from(["text", "number"]), min_size=1, max_size=9),
    words=st.lists(st.text("abcdefgh", min_size=1, max_size=30), min_size=1, max_size=6),
    width=st.sampled_from([40, 80, 120]),
)
def test_tables_of_any_shape_fit_and_lose_nothing(columns, words, width):
    import io

    from rich.console import Console

    names = [f"{kind}{i}" for i, kind in enumerate(columns)]
    right = " ".join(name for name in names if name.startswith("number"))
    rows = [[" ".join(words) if name.startswith("text") else "1,234.5" for name in names]]
    screen = io.StringIO()
    Console(file=screen, width=width).print(table(names, rows, right=right))
    assert max(map(len, screen.getvalue().splitlines())) <= width
    shown = "".join(screen.getvalue().split())
    assert all(name in shown for name in names)
    assert screen.getvalue().count("1,234.5") >= len(right.split())
    # Folded texts stand in columns, letter by letter in order: count the letters.
    letters = sum(len(word) for word in words) * sum(name.startswith("text") for name in names)
    assert sum(c in "abcdefgh" for c in shown.replace("number", "")) >= letters


@pytest.mark.parametrize("width", WIDTHS)
def test_runs_are_a_line_each_or_whole(jade, recorded, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    listed = jade("runs", "list")
    assert listed.code == 0
    lines = [line for line in listed.out.splitlines() if re.match(r" [0-9a-f]{8} ", line)]
    assert {line.split()[0] for line in lines} == recorded
    assert max(map(len, listed.out.splitlines())) <= width
    assert all("…" in line for line in lines)
    assert "question" in listed.out
    assert len(listed.out.splitlines()) < 9
    wide = jade("runs", "list", "--wide")
    assert "…" not in wide.out
    assert wide.out.count("answer") >= 40 * len(recorded)  # the answerer keeps so many words


@pytest.fixture
def recorded(jade) -> set[str]:
    """Ids of recorded runs, with long questions and answers."""
    from jade_graph import JadeGraph
    from jade_graph.backbones.scripted import ScriptedBackbone
    from jade_graph.retrieval.memory import MemoryRetriever
    from jade_graph.runs.store import RunStore
    from jade_graph.types import Passage

    found = MemoryRetriever([Passage("1", "Dune was written by Frank Herbert.", "Dune")])

    def policy(ask):
        return {"PL": "<workflow>R,AG</workflow>", "AG": f"<answer>{LONG}</answer>"}[ask.role]

    with RunStore(".jade/runs.db") as store:
        graph = JadeGraph(ScriptedBackbone(policy), retriever=found, recorder=store)
        return {graph.run(f"Who {'really ' * 40}wrote number {number}?").id[:8] for number in range(3)}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "line",
    [
        ("runs", "list"),
        ("runs", "list", "--wide"),
        ("runs", "show", "last"),
        ("presets", "list"),
        ("presets", "show", "jade"),
        ("plugins", "list"),
        ("errors",),
        ("config", "show"),
        ("doctor",),
        ("models", "list"),
        ("corpora", "list"),
        ("bench",),
        ("version",),
        ("microworld", "show"),
        ("explain-credit", "last", "--gold", LONG),
    ],
    ids=lambda line: " ".join(line)[:30],
)
def test_what_commands_print_fits(jade, recorded, monkeypatch, width, line):
    monkeypatch.setenv("COLUMNS", str(width))
    done = jade(*line)
    assert done.code in (0, 1), done.err
    assert max(map(len, done.out.splitlines())) <= width
