"""README and docs: marked blocks are run, tables agree with the code, links and commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from jade_graph import plugins
from jade_graph.cli import failures
from jade_graph.cli.app import BUILTINS
from jade_graph.settings.config import KEYS
from jade_graph.types import SCHEMA_VERSION, Transition

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"<!-- run -->\n```(bash|python)\n(.*?)\n```(?:\n\n<!-- prints -->\n```text\n(.*?)\n```)?", re.DOTALL
)
"""A block that is run, and what it prints on standard output where the page shows it."""
# `jade NAME`, at the beginning of a line of a block or of inline code.
COMMAND = re.compile(r"(?:^|`)(?:\.venv/bin/)?jade ([a-z]+(?:-[a-z]+)*)(?: ([a-z]+))?", re.MULTILINE)


def read(path: Path) -> str:
    return path.read_text("utf-8")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def rows(page: str) -> list[list[str]]:
    """The cells of every table row of a page, code marks taken off."""
    lines = (line for line in read(ROOT / "docs" / "reference" / page).splitlines() if line.startswith("| "))
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines]


SLOW = {"docs/howto/own-graph.md"}
"""Pages that take more than a minute: `make test-all` runs them."""


def runnable() -> list[Any]:
    """Pages with blocks that run, as parameters."""
    pages = [page for page in PAGES if BLOCK.search(read(page))]
    return [pytest.param(p, marks=[pytest.mark.slow] if relative(p) in SLOW else [], id=relative(p)) for p in pages]


@pytest.mark.parametrize("page", runnable())
def test_marked_blocks_run_one_after_the_other_in_an_empty_folder(page, tmp_path):
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("JADE_", "XDG_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = settings | {
        "PATH": path,
        "HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "100",
        "OMP_NUM_THREADS": "1",
    }
    blocks = BLOCK.findall(read(page))
    if any(re.search(r"\bsmol\b", block) for _, block, _ in blocks):
        models = ROOT / ".jade" / "models"
        if not (models / "smollm2" / "jade.json").is_file():
            pytest.skip("smol is not on this machine: make setup adds it")
        (tmp_path / ".jade").mkdir()
        (tmp_path / ".jade" / "models").symlink_to(models)
    env["JADE_ENCODER"] = "hash"  # what a text means is tested elsewhere: here no weights are read
    for language, block, printed in blocks:
        command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-W", "error", "-c"]
        done = subprocess.run(
            [*command, block], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        if printed:
            assert done.stdout.rstrip() == printed, block


def test_first_snippets_show_what_they_print_and_no_output_stands_alone():
    first = {"README.md", "docs/howto/embed.md", "docs/howto/plans.md", "docs/howto/loop.md"}
    for page in PAGES:
        text, shown = read(page), [printed for _, _, printed in BLOCK.findall(read(page)) if printed]
        assert text.count("<!-- prints -->") == len(shown), f"{relative(page)}: an output without its block"
        assert shown or relative(page) not in first


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_command_in_the_text_exists(page):
    known = {*BUILTINS, *plugins.names("jade.commands")}
    named = {match[1] for match in COMMAND.finditer(read(page))}
    assert not named - known


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_to_files_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", read(page))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_settings_page_has_every_setting_with_its_default_and_meaning():
    shown = {row[0]: row[1:] for row in rows("config.md") if row[0] in KEYS}
    assert list(shown) == list(KEYS)
    for name, (default, meaning) in shown.items():
        key = KEYS[name]
        assert default.lower() == ("none" if key.default is None else str(key.default).lower())
        assert meaning.startswith(key.meaning)
        assert all(choice in meaning for choice in key.choices)


def test_the_transitions_page_has_every_column_and_the_schema():
    shown = {name for row in rows("transitions.md") for name in re.findall(r"\w+", row[0].replace("`", ""))}
    assert {f.name for f in fields(Transition)} <= shown
    assert f"The schema version is {SCHEMA_VERSION}." in read(ROOT / "docs" / "reference" / "transitions.md")


def test_the_python_page_has_every_public_name():
    import jade_graph

    shown = {name for row in rows("python.md") for name in re.findall(r"\w+", row[0])}
    assert set(jade_graph.__all__) <= shown


def test_the_command_page_has_every_command_and_exit_code():
    text = read(ROOT / "docs" / "reference" / "cli.md")
    assert set(BUILTINS) <= {match[1] for match in COMMAND.finditer(text)}
    shown = {int(row[0]) for row in rows("cli.md") if row[0].isdigit()}
    assert shown == {*range(10), failures.INTERNAL, failures.INTERRUPTED, failures.BROKEN_PIPE}


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = (tmp_path / "index.html").read_text("utf-8")
    assert "fonts.googleapis" not in site
