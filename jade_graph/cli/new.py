"""`jade new`: a part of your own, or a project, as a package that installs and whose tests pass.

Invariant: nothing that is there is written over, and what is written runs as it is: its tests ask for what the engine
relies on (`jade_graph.testing`).
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated, Any, NamedTuple

import typer

from jade_graph.cli.command import Cli, command, group
from jade_graph.errors import UsageError

app = group("new", "A package of your own with a test: role, loop, reward, retriever, preset or project.")


class Kind(NamedTuple):
    """What can be made: its line of help, its entry points, how it is used, and files beside those of every package."""

    title: str
    entries: Mapping[str, Mapping[str, str]]
    use: str
    files: Mapping[str, str] = {}


_PRESET = {"$name": "$package:PRESET"}
KINDS: dict[str, Kind] = {
    "role": Kind(
        "A role",
        {"roles": {"$code": "$package:ROLE"}, "plan_rules": {"$name": "$package:rule"}, "presets": _PRESET},
        'jade ask ".." --preset $name --plan $code,R,AG',
    ),
    "loop": Kind(
        "A turn loop",
        {"roles": {"$code": "$package:ROLE"}, "loops": {"$name": "$package:LOOP"}, "presets": _PRESET},
        'jade ask ".." --preset $name',
    ),
    "reward": Kind("A reward", {"rewards": {"$name": "$package:reward"}}, "jade improve --outcome $name"),
    "retriever": Kind(
        "A retriever",
        {"retrievers": {"$name": "$package:open_"}},
        'jade search $name: ".."; jade ask ".." --corpus $name:',
    ),
    "preset": Kind("A method", {"presets": _PRESET}, 'jade ask ".." --preset $name'),
    "project": Kind(
        "A project",
        {"presets": _PRESET, "rewards": {"$name": "$package:reward"}},
        "jade index documents --corpus $name",
        {
            "jade.toml": "jade.toml",
            "questions.jsonl": "questions.jsonl",
            "documents/dune.md": "dune.md",
            "documents/emma.md": "emma.md",
        },
    ),
}


def _maker(kind: str) -> Callable[..., None]:
    def make(
        cli: Cli,
        name: Annotated[str, typer.Argument(help="Of the package, e.g. query-notes; its folder is called so.")],
        out: Annotated[Path | None, typer.Option(help="Folder to write into; default: ./NAME.")] = None,
        code: Annotated[
            str | None, typer.Option(help="Code of the role in plans, in capitals; default: made of the name.")
        ] = None,
    ) -> None:
        written = write(kind, name, out or Path(name), code=code)
        cli.out.result(written, lambda: _told(written))

    make.__doc__ = f"{KINDS[kind].title} as a package with its entry points and a test."
    make.__name__ = kind
    return make


for _kind in KINDS:
    command(app, _kind)(_maker(_kind))


def write(kind: str, name: str, folder: Path, *, code: str | None = None) -> dict[str, Any]:
    """Write the package NAME of a kind into a folder that is empty or not there.

    Returns:
        `kind`, `name`, `package`, `code` (of roles and loops, else None), `folder`, `files`, `next` (command lines).

    Raises:
        UsageError: NEW_NAME, NEW_CODE, NEW_TAKEN.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} is no name for a package.", code="NEW_NAME", hint="small letters and digits, words joined by -"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{str(folder)!r} is there and not empty.", code="NEW_TAKEN", hint="--out FOLDER")
    made = KINDS[kind]
    if code is not None and "roles" not in made.entries:
        raise UsageError(f"a {kind} has no role, so no code {code!r}.", code="NEW_CODE", hint="leave out --code")
    package = name.replace("-", "_")
    if package in {"jade_graph", "jade_nodes", "jade_training"}:
        raise UsageError(f"{name!r} is the name of an installed package.", code="NEW_NAME", hint="another name")
    words = {
        "name": name,
        "package": package,
        "class_": "".join(word.capitalize() for word in name.split("-")),
        "title": f"{made.title} named {name}",
        "code": _code(name, code) if "roles" in made.entries else "",
    }
    words["use"] = Template(made.use).substitute(words)
    words["entries"] = Template("\n\n".join(_tables(made.entries))).substitute(words)
    readme = "project_README.md" if kind == "project" else "README.md"
    targets = {
        "pyproject.toml": "pyproject.toml",
        "README.md": readme,
        f"src/{package}/__init__.py": f"{kind}.py",
        f"tests/test_{package}.py": f"{kind}_test.py",
        **made.files,
    }
    scaffolds = files("jade_graph.cli") / "scaffolds"
    for target, template in targets.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (scaffolds / f"{template}.tmpl").read_text("utf-8")
        path.write_text(Template(text).substitute(words), "utf-8")
    return {
        "kind": kind,
        "name": name,
        "package": package,
        "code": words["code"] or None,
        "folder": str(folder),
        "files": list(targets),
        "next": [f"cd {folder}", 'pip install -e ".[test]"', "pytest", words["use"]],
    }


def _code(name: str, given: str | None) -> str:
    """A code for a role that no installed role has: as given, else of the name's letters."""
    from jade_graph import plugins
    from jade_graph.errors import unknown

    taken = plugins.names("jade.roles")
    if given is not None:
        if not re.fullmatch(r"[A-Z][A-Z0-9]*", given) or given == "END":
            raise UsageError(f"{given!r} is no code of a role.", code="NEW_CODE", hint="capitals and digits, e.g. QN")
        if given in taken:
            raise UsageError(f"a role {given!r} is installed.", code="NEW_CODE", known=taken, hint="another --code")
        return given
    found = next((code for code in _codes(name.upper()) if code not in taken), None)
    if found is None:
        raise unknown("code", name, taken, code="NEW_CODE", hint="--code CODE")
    return found


def _codes(name: str) -> Iterator[str]:
    words, letters = name.split("-"), name.replace("-", "")
    if len(words) > 1:
        yield "".join(word[0] for word in words)
    yield from (letters[0] + other for other in letters[1:])
    yield letters


def _tables(entries: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for family, points in entries.items():
        lines = [f'[project.entry-points."jade.{family}"]', *(f'{key} = "{value}"' for key, value in points.items())]
        yield "\n".join(lines)


def _told(written: Mapping[str, Any]) -> list[Any]:
    from rich.text import Text

    what = f"{written['kind']} {written['name']}" + (f", code {written['code']}" if written["code"] else "")
    return [
        Text(f"wrote {what} into {written['folder']}"),
        *(Text(f"  {path}", style="dim") for path in written["files"]),
        Text("Next:"),
        *(Text(f"  {line}") for line in written["next"]),
    ]
