"""Extension points: the list of groups is the list of what is really asked for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from jade_graph import plugins
from jade_graph.errors import PluginError, UsageError

ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r'"(jade\.[a-z_]+)"')  # groups, but files, tags and span attributes too
GROUP = re.compile(r'(?:plugins\.\w+\(|\b[A-Z_]*GROUP[A-Z_]* = )\s*"(jade\.[a-z_]+)"')


def test_every_group_that_is_looked_up_is_listed() -> None:
    texts = [
        path.read_text("utf-8")
        for folder in ("jade_graph", "nodes", "training")
        for path in (ROOT / folder).rglob("*.py")
    ]
    looked_up = {group for text in texts for group in GROUP.findall(text)}
    named = {name for text in texts for name in NAME.findall(text)}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    assert set(plugins.GROUPS) >= set(declared) | looked_up
    assert len(looked_up) >= 8
    assert named >= set(plugins.GROUPS)
    assert "jade.encoders" in plugins.GROUPS


@pytest.mark.parametrize("group", plugins.GROUPS)
def test_an_unknown_name_is_told_by_its_kind(group: str) -> None:
    kind = group.removeprefix("jade.").rstrip("s").upper()
    with pytest.raises(UsageError, match=f"UNKNOWN_{kind}"):
        plugins.load(group, "no-such-part")


def test_what_does_not_import_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    broken = EntryPoint("broken", "jade_no_such_module:X", "jade.roles")
    monkeypatch.setattr(plugins, "_found", lambda group: {"broken": broken})
    with pytest.raises(PluginError, match=r"PLUGIN_LOAD.*'broken'.*jade_no_such_module"):
        plugins.load("jade.roles", "broken")
