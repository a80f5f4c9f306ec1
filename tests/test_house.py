"""The house: rooms, floors, no circles; and that the pages that describe it say what is there."""

from __future__ import annotations

import importlib.util
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", ROOT / "tools" / "house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module
    spec.loader.exec_module(module)
    return module


house = _tool()
FOUND = {package: house.imports(house.modules(package, folder)) for package, folder in house.PACKAGES.items()}
FLOORED = ["jade_graph", "jade_training"]
PACKAGES = sorted(house.PACKAGES)


# --- the rooms --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("package", FLOORED)
def test_nobody_imports_from_a_room_above_or_beside(package):
    assert not list(map(str, house.upward(FOUND[package], house.floors(package))))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle_also_within_functions(package):
    assert house.circles_of(FOUND[package]) == []


@pytest.mark.parametrize("package", FLOORED)
def test_no_rooms_import_each_other_in_a_circle_types_counted(package):
    assert house.circles_of(FOUND[package], rooms=True) == []


@pytest.mark.parametrize(("package", "most"), [("jade_graph", 6), ("jade_training", 3)])
def test_few_files_lie_about_beside_the_rooms(package, most):
    assert len(house.loose(house.PACKAGES[package])) <= most


@pytest.mark.parametrize("package", FLOORED)
def test_every_room_stands_on_one_floor_and_says_what_it_keeps(package):
    folder = house.PACKAGES[package]
    rooms = {house.room(name) for name in house.modules(package, folder)} - {""}
    assert sorted(name for names in house.floors(package) for name in names) == sorted(rooms)
    for name in rooms:
        path = folder / name / "__init__.py" if (folder / name).is_dir() else folder / f"{name}.py"
        assert "Invariant:" in path.read_text("utf-8"), f"{path} does not say what it keeps"


def test_the_engine_knows_no_runnable_of_langchain():
    known = {"RunnableConfig", "ensure_config", "get_async_callback_manager_for_config"}
    for path in (ROOT / "jade_graph" / "workflow").glob("*.py"):
        for module, names in re.findall(r"from (langchain[\w.]*) import ([^\n(]+)", path.read_text("utf-8")):
            taken = {name.strip() for name in names.split(",")}
            assert module.startswith("langchain_core.runnables"), path
            assert taken <= known, f"{path.name} takes {taken - known} from LangChain"


def test_no_method_is_declared_again_for_the_type_checker():
    for package, folder in house.PACKAGES.items():
        for name, path in house.modules(package, folder).items():
            blocks = re.findall(r"^ *if TYPE_CHECKING:\n((?: +.*\n|\n)+)", path.read_text("utf-8"), re.MULTILINE)
            assert not any(re.search(r"^ +(?:async )?def ", block, re.MULTILINE) for block in blocks), name


# --- one vocabulary ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("word", "homes"),
    [
        ("assembly", ["jade_graph.assembly"]),
        ("card", ["jade_graph.registry.card", "jade_training.pretrain.card", "jade_training.real.card"]),  # of a model
        ("demo", ["jade_graph.cli.demo", "jade_training.cli.demo"]),  # `jade demo`, and its part that learns
        ("forward", ["jade_graph.backbones.forward"]),
        ("plans", ["jade_graph.workflow.plans"]),
        ("source", ["jade_graph.versions.source"]),
        ("sources", []),
        ("state", ["jade_graph.workflow.state"]),
        ("testing", ["jade_graph.testing"]),
    ],
)
def test_a_word_names_one_thing(word, homes):
    every = [name for package, folder in house.PACKAGES.items() for name in house.modules(package, folder)]
    assert [name for name in every if name.rpartition(".")[2] == word] == homes


# --- the tool finds what it is there to find --------------------------------------------------------------------------
@pytest.fixture
def crooked(tmp_path: Path) -> list:
    """A package with an import upwards, one beside, and circles at import time, in functions and for types."""
    files = {
        "low/__init__.py": "",
        "low/words.py": "def late():\n    from pkg.high import door\n",
        "low/a.py": "from pkg.low import b\n",
        "low/b.py": "class C:\n    def f(self):\n        from pkg.low.a import x\n",
        "low/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.low import d\n",
        "low/d.py": "from . import c\n",
        "high/__init__.py": "",
        "high/door.py": "from pkg.low.words import late\nimport pkg.beside\n",
        "beside.py": "import os\n",
    }
    for name, text in files.items():
        path = tmp_path / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return house.imports(house.modules("pkg", tmp_path / "pkg"))


def test_imports_are_read_wherever_they_stand(crooked):
    assert list(map(str, crooked)) == [
        "pkg.high.door -> pkg.beside (import)",
        "pkg.high.door -> pkg.low.words (import)",
        "pkg.low.a -> pkg.low.b (import)",
        "pkg.low.b -> pkg.low.a (function)",
        "pkg.low.c -> pkg.low.d (type)",
        "pkg.low.d -> pkg.low.c (import)",
        "pkg.low.words -> pkg.high.door (function)",
    ]


def test_what_is_crooked_is_told(crooked):
    told = house.upward(crooked, [["low"], ["beside", "high"]])
    assert list(map(str, told)) == [
        "pkg.high.door -> pkg.beside (import)",
        "pkg.low.words -> pkg.high.door (function)",
    ]
    assert house.circles_of(crooked) == [["pkg.high.door", "pkg.low.words"], ["pkg.low.a", "pkg.low.b"]]
    assert house.circles_of(crooked, rooms=True) == [["high", "low"]]


# --- what the pages say -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("package", FLOORED)
def test_the_picture_is_drawn_from_the_imports_of_today(package):
    drawn = house.PICTURES[package].read_text("utf-8")
    assert drawn == house.svg(package), "the picture is of yesterday: make architecture"
    assert f"img/{house.PICTURES[package].name}" in ARCHITECTURE


@pytest.mark.parametrize("package", FLOORED)
def test_the_pictures_storeys_are_the_linters_floors(package):
    height = {name: i for i, names in enumerate(house.floors(package)) for name in names}
    flat = [name for _, names in house.STOREYS[package] for name in names]
    assert sorted(flat) == sorted(height)
    for storey, (_, names) in enumerate(house.STOREYS[package]):
        above = [name for _, upper in house.STOREYS[package][storey + 1 :] for name in upper]
        assert all(height[low] < height[high] for low in names for high in above)


@pytest.mark.parametrize("package", FLOORED)
def test_every_room_is_described_and_in_the_readmes_tree(package):
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in (name for names in house.floors(package) for name in names):
        place = f"{name}/" if (house.PACKAGES[package] / name).is_dir() else f"{name}.py"
        assert re.search(rf"^\|[^|\n]*\| `{re.escape(place)}` \|", ARCHITECTURE, re.MULTILINE), f"no row for {place}"
        assert re.search(rf"^[ │├└─]*{re.escape(place)} ", readme, re.MULTILINE), f"the README's tree lacks {place}"


def test_every_credit_mode_is_explained():
    from jade_graph.scoring.credit import MODES

    for page in (
        "docs/credit.md",
        "docs/reference/errors.md",
        "jade_graph/scoring/credit.py",
        "jade_graph/cli/explain_credit.py",
    ):
        text = (ROOT / page).read_text("utf-8")
        missing = [mode for mode in MODES if not re.search(rf"(?<!\w){mode}(?!\w)", text)]
        assert not missing, f"{page} does not say what {missing} are"


def _walk(title: str) -> list[str]:
    section = ARCHITECTURE.partition(f"### {title}\n")[2].partition("\n#")[0]
    return re.findall(r"^\d+\. `([\w.]+)`", section, re.MULTILINE)


@pytest.mark.parametrize(
    ("title", "ends", "down"),
    [
        ("The way of a question", ("jade_graph.langchain.runnable", "jade_graph.types"), True),
        ("The way of a reward", ("jade_graph.types", "jade_training.learner.trainer"), False),
    ],
)
def test_the_walks_go_one_way(title, ends, down):
    steps = _walk(title)
    assert (steps[0], steps[-1]) == ends
    assert len(steps) >= 5
    known = {(each.by, each.of) for found in FOUND.values() for each in found if each.kind != "type"}
    training = house.imports({**house.modules("jade_graph", house.PACKAGES["jade_graph"]),
                              **house.modules("jade_training", house.PACKAGES["jade_training"])})  # fmt: skip
    known |= {(each.by, each.of) for each in training if each.kind != "type"}
    height = {f"{p}.{name}": (p, i) for p in FLOORED for i, names in enumerate(house.floors(p)) for name in names}
    floors = [height[".".join(step.split(".")[:2])] for step in steps]
    assert floors == sorted(floors, reverse=down), "the way goes up and down again"
    for one, other in pairwise(steps):
        by, of = (one, other) if down else (other, one)
        assert (by, of) in known, f"{by} does not import {of}"


def test_contributing_names_files_that_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| a[n ]?[^|]*\| ([^|]*)\| ([^|]*)\|", text, re.MULTILINE)
    assert len(rows) >= 12
    for row in rows:
        for path in re.findall(r"`([\w./-]+/[\w./-]+)`", " ".join(row)):
            assert (ROOT / path).exists(), f"CONTRIBUTING names {path}, which is not there"
