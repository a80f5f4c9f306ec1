"""The project as a whole: what importing costs, how it is packaged, what its files promise."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES = [ROOT / folder for folder in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
MODULES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
HEAVY = ["torch", "transformers", "chromadb", "langgraph", "langchain_core", "sqlalchemy", "bm25s", "numpy", "httpx"]


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a checkout")
    return [path for name in done.stdout.splitlines() if (path := ROOT / name).is_file()]


def name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


# --- importing --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "script",
    [
        "import jade_graph",
        "import jade_graph.types, jade_graph.errors, jade_graph.settings.config, jade_graph.settings.manifest",
        "import jade_graph.gate, jade_graph.rollouts, jade_graph.gate.policy, jade_graph.langchain",
        "import jade_graph.cli.console, jade_graph.settings.plain",
        "from jade_graph.cli import main; main(['--help'])",
        "from jade_graph.cli import main; main(['config', 'show'])",
        "from jade_graph.cli import main; main(['ask', '--help'])",
        "import jade_nodes.presets",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(script, tmp_path):
    look = f"\nimport sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script + look], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_packages_public_names_are_all_there():
    import jade_graph

    for public in jade_graph.__all__:
        assert getattr(jade_graph, public) is not None
        assert public in dir(jade_graph)
    with pytest.raises(AttributeError, match="nope"):
        _ = jade_graph.nope


def test_the_version_is_said_once():
    import jade_graph

    assert jade_graph.__version__ == PROJECT["project"]["version"]


# --- packaging --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("group", "entry", "target"),
    [
        (group, entry, target)
        for group, entries in PROJECT["project"]["entry-points"].items()
        for entry, target in entries.items()
    ],
)
def test_every_entry_point_leads_somewhere(group, entry, target):
    module, _, attribute = target.partition(":")
    found = import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    assert found is not None


def test_every_direct_dependency_is_pinned_and_every_pin_is_exact():
    lines = [x for x in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if x and not x.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {name(line) for line in lines}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = {name(r) for r in [*PROJECT["project"]["dependencies"], *(r for extra in extras.values() for r in extra)]}
    assert not wanted - pinned - {"jade-graph"}  # an extra may name the others
    assert "torch==2.13.0" in lines


def test_every_package_is_typed():
    assert all((package / "py.typed").is_file() for package in PACKAGES)


@pytest.mark.slow
def test_a_wheel_carries_types_errors_page_model_and_licence(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in PACKAGES:
        assert f"{package.name}/py.typed" in names
    assert "jade_graph/cli/errors.md" in names
    assert any(n.endswith("licenses/LICENSE") for n in names)
    for path in (ROOT / "jade_graph" / "assets").rglob("*"):
        assert path.is_dir() or str(path.relative_to(ROOT)) in names
    assert not any(n.startswith(("tests/", "docs/")) for n in names)


# --- modules ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_short_and_says_what_it_is(path):
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    assert ast.get_docstring(ast.parse(text)) or not text.strip()


# --- files ------------------------------------------------------------------------------------------------------------
def test_make_lists_every_target_and_needs_nothing_installed():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    wanted = {"setup", "demo", "test", "test-all", "check", "bench", "docs", "clean", "help"}
    explained = set(re.findall(r"^([a-z-]+):.*?## \S", makefile, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    assert wanted <= explained == phony


def test_no_file_names_a_machine():
    places = re.compile(r"(?<![\w.~$}-])/(?:work|root|home/\w+|Users/\w+|opt/pypi)/")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ""} and path != Path(__file__)
        for match in [places.search(path.read_text("utf-8", errors="ignore"))]
        if match
    ]
    assert not found


def test_no_weights_but_safetensors_are_in_the_project():
    risky = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy"}
    assert not [path for path in tracked() if path.suffix in risky]


def test_remote_code_is_never_trusted():
    asked = [path for path in MODULES if re.search(r"trust_remote_code\s*=\s*True", path.read_text("utf-8"))]
    assert not asked
