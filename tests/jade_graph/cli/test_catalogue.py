import ast
from collections.abc import Iterator
from pathlib import Path

from jade_graph import plugins
from jade_graph.cli import catalogue
from jade_graph.errors import JadeError
from jade_graph.types import Role
from jade_graph.workflow.plans import VIOLATIONS

ROOT = Path(__file__).resolve().parents[3]
SOURCES = [p for folder in ("jade_graph", "nodes", "training") for p in sorted((ROOT / folder).rglob("*.py"))]
# The modules that write the `error` of a run or of a trace node.
RUN_ERRORS = [
    ROOT / "jade_graph" / f"{name}.py"
    for name in (
        *(f"workflow/{name}" for name in ("actor", "blackboard", "context", "contexts", "engine", "loops", "nodes")),
        "runs/recording",
    )
]


def strings(node: ast.AST) -> Iterator[str]:
    return (n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str))


def is_code(text: str) -> bool:
    return text.isupper() and text.replace("_", "").isalnum() and ("_" in text or text in ("CANCELLED", "INTERNAL"))


def raised() -> dict[str, str]:
    """Every code given as `code=..` in a call, or as the class attribute of an error."""
    out: dict[str, str] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    if keyword.arg == "code" and not isinstance(keyword.value, ast.JoinedStr):
                        out |= dict.fromkeys(filter(is_code, strings(keyword.value)), str(path))
            elif isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                for line in node.body:
                    target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
                    if isinstance(target, ast.Name) and target.id == "code":
                        out |= dict.fromkeys(strings(line.value), str(path))  # type: ignore[attr-defined]
    return out


def of_plugins() -> set[str]:
    """`plugins.load` makes its codes from the group's name."""
    made = (g.removeprefix("jade.").rstrip("s").upper() for g in plugins.GROUPS)
    return {f"UNKNOWN_{name}" for name in made}


def of_runs() -> set[str]:
    found = {text for path in RUN_ERRORS for text in strings(ast.parse(path.read_text("utf-8")))}
    return {text for text in found if is_code(text)}


def violations() -> set[str]:
    roles = (plugins.load("jade.roles", name) for name in plugins.names("jade.roles"))
    return {code for role in roles if isinstance(role, Role) for code in role.violations} | set(VIOLATIONS)


def test_every_code_in_the_source_is_documented():
    known = catalogue.read()
    missing = {code: path for code, path in raised().items() if code not in known}
    assert not missing
    assert not (of_plugins() | of_runs() | violations()) - set(known)


def test_nothing_is_documented_that_does_not_exist():
    of_the_graph = {"OVERLONG", "UNPARSED"}
    assert not set(catalogue.read()) - set(raised()) - of_plugins() - of_runs() - violations() - of_the_graph


def test_the_documented_exit_codes_are_those_of_the_classes():
    known = catalogue.read()
    seen = set()
    todo = [JadeError]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__.startswith("jade_graph") and kind.code in known:
            assert known[kind.code].exit_code == kind.exit_code
            seen.add(kind.code)
    assert len(seen) >= 9


def test_every_entry_has_a_meaning_and_no_code_is_there_twice():
    page = (ROOT / "docs/reference/errors.md").read_text("utf-8")
    entries = catalogue.parse(page)
    assert page.count("\n### ") == len(entries)
    assert all(entry.meaning.endswith((".", ")")) for entry in entries.values())


def test_parsing():
    first = "# E\n\nIntro\n\n## A (exit code 3)\n\nwords\n\n### ONE_CODE\n\nFirst\nline.\n\nMore.\n\n"
    page = first + "## B (exit code 4)\n\n### TWO\n\nx\n"
    entries = catalogue.parse(page)
    assert list(entries) == ["ONE_CODE", "TWO"]
    assert entries["ONE_CODE"].text == "First\nline.\n\nMore."
    assert entries["ONE_CODE"].meaning == "First line."
    assert [e.exit_code for e in entries.values()] == [3, 4]


def test_the_command_explains_one_code_lists_all_and_knows_its_own_limits(jade):
    one = jade("errors", "plan_illegal", "--json").json
    assert one["code"] == "PLAN_ILLEGAL"
    assert one["exit_code"] == 2
    assert len(jade("errors", "--json").json["errors"]) == len(catalogue.read())
    assert "DS_WITHOUT_R" in jade("errors").out
    assert "PLAN_ILLEGAL" in jade("errors", "PLAN_ILLEGAL").out
    assert jade("errors", "PLAN_ILEGAL", "--json").json["error"]["hint"] == "did you mean 'PLAN_ILLEGAL'?"
