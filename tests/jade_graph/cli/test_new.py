"""Every kind of package that `jade new` writes is found by its entry points, and its own tests pass."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jade_graph.cli import new


def installed(package: Path, target: Path) -> None:
    """What pip makes of an editable install, without a network: the sources on the path, and the entry points."""
    about = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]
    info = target / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    lines = [
        line
        for group, points in about["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", new.KINDS)
def test_what_is_written_passes_its_own_tests(jade, kind, tmp_path):
    done = jade("new", kind, "query-notes", "--json")
    assert done.code == 0, done.err
    folder = Path(done.json["folder"])
    assert all((folder / path).is_file() for path in done.json["files"])
    assert "$" not in "".join((folder / path).read_text("utf-8") for path in done.json["files"])
    installed(folder, tmp_path / "site")
    root = Path(__file__).parents[3]
    path = [tmp_path / "site", folder.absolute() / "src", root, root / "nodes", root / "training"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "passed" in ran.stdout


def test_a_package_builds_as_a_wheel_with_its_entry_points(jade):
    from hatchling.builders.wheel import WheelBuilder

    jade("new", "role", "query-notes")
    built = Path(next(iter(WheelBuilder("query-notes").build(directory="dist"))))
    from zipfile import ZipFile

    with ZipFile(built) as wheel:
        names = wheel.namelist()
        points = wheel.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert "query_notes/__init__.py" in names
    assert "QN = query_notes:ROLE" in points


def test_what_is_there_is_never_written_over(jade):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("kept")
    done = jade("new", "preset", "mine", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "NEW_TAKEN")
    assert [p.name for p in Path("mine").iterdir()] == ["notes.txt"]
    assert jade("new", "preset", "mine", "--out", "elsewhere").code == 0


@pytest.mark.parametrize("name", ["Mine", "../up", "a b", "class", "jade-graph", "", "-x"])
def test_names_that_no_package_can_have(jade, name):
    done = jade("new", "reward", "--json", "--", name)
    assert (done.code, done.json["error"]["code"]) == (2, "NEW_NAME")


@pytest.mark.parametrize("code", ["qn", "AG", "END", "Q-N", ""])
def test_codes_that_no_role_can_have(jade, code):
    done = jade("new", "role", "mine", "--code", code, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "NEW_CODE")
    assert not Path("mine").exists()


def test_what_has_no_role_takes_no_code(jade):
    done = jade("new", "reward", "mine", "--code", "QN", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "NEW_CODE")


def test_a_code_is_made_of_the_name_and_taken_by_nobody():
    assert new._code("query-notes", None) == "QN"
    assert new._code("answer-guess", None) == "AN"  # AG is the answerer's
    assert new._code("note", "NOTE") == "NOTE"


def test_what_is_printed_says_how_to_go_on(jade):
    out = jade("new", "role", "query-notes").out
    assert "cd query-notes" in out
    assert 'jade ask ".." --preset query-notes --plan QN,R,AG' in out
