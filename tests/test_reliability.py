"""The counting of `make reliability` itself, at sizes of a moment: it counts, goes on, and can fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "reliability"


@pytest.fixture
def reliability(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield lambda name: __import__(name)
    for name in [n for n, m in sys.modules.items() if str(FOLDER) in str(getattr(m, "__file__", ""))]:
        del sys.modules[name]


def test_hostile_outputs_raise_nothing(reliability: Any, tmp_path: Path) -> None:
    for name, last in (("part_parsers", 100), ("part_graphs", 7)):
        part = reliability(name)
        found = part.block(0, last, 1, tmp_path)
        assert found.get("outputs", found.get("runs")) == last, found["examples"]
        assert not found["exceptions"] + found["unnamed"], found["examples"]
        if name == "part_graphs":
            assert part.broken(found) == []
        assert part.broken({**found, "exceptions": 1, "examples": ["x"]})


def test_counts_go_on_where_they_stopped(reliability: Any, tmp_path: Path) -> None:
    main, asked = __import__("runpy").run_path(str(FOLDER / "__main__.py"), run_name="counting"), []

    class Part:
        FULL, BLOCK = 100, 4
        block = staticmethod(lambda a, b, seed, folder: asked.append((a, b)) or {"n": b - a, "most_ms": a})
        broken = staticmethod(lambda figures: ["one"] if figures["n"] > 9 else [])

    main["PARTS"]["toy"] = Part
    (tmp_path / "toy.json").write_text(json.dumps(
        {"part": "toy", "size": 10, "seed": 0, "done": 8, "seconds": 1.0, "figures": {"n": 8, "most_ms": 4}}
    ))  # fmt: skip
    state = main["counted"]("toy", 10, 0, tmp_path)
    assert asked == [(8, 10)]
    assert (state["figures"], state["broken"]) == ({"n": 10, "most_ms": 8}, ["one"])
    assert main["counted"]("toy", 4, 1, tmp_path)["figures"] == {"n": 4, "most_ms": 0}  # another seed begins anew
