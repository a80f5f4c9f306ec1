import json
import subprocess
import sys

import pytest
import typer

from jade_graph.cli import failures
from jade_graph.errors import (
    BackboneError,
    ConfigError,
    DataError,
    GraphError,
    JadeError,
    PluginError,
    RetrievalError,
    StoreError,
    UsageError,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (JadeError, 1),
        (UsageError, 2),
        (ConfigError, 2),
        (DataError, 3),
        (RetrievalError, 4),
        (BackboneError, 5),
        (StoreError, 6),
        (PluginError, 7),
        (GraphError, 8),
    ],
)
def test_every_kind_of_error_has_its_exit_code(kind, code, capsys):
    assert failures.report(kind("something"), ["--json"]) == code
    told = json.loads(capsys.readouterr().out)["error"]
    assert (told["code"], told["exit_code"]) == (kind.code, code)
    assert told["docs"] == f"docs/reference/errors.md#{kind.code.lower()}"


def test_a_person_reads_what_is_wrong_what_is_known_and_what_to_do_on_standard_error(capsys):
    error = UsageError("unknown role '[XX]'.", code="UNKNOWN_ROLE", known=["PL", "AG"], hint="did you mean 'AG'?")
    assert failures.report(error, []) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    for part in ("UNKNOWN_ROLE", "unknown role '[XX]'.", "PL, AG", "did you mean 'AG'?", "jade errors UNKNOWN_ROLE"):
        assert part in captured.err


def test_a_bug_is_reported_as_one_and_its_traceback_is_for_verbose(capsys):
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 / 0
    assert failures.report(caught.value, []) == 70
    quiet = capsys.readouterr().err
    failures.report(caught.value, ["ask", "-v"])
    loud = capsys.readouterr().err
    assert "INTERNAL" in quiet
    assert "ZeroDivisionError" in quiet
    assert "Traceback" not in quiet
    assert "Traceback" in loud


def test_passwords_in_messages_are_masked(capsys):
    failures.report(StoreError("cannot open 'postgresql://me:sesame@host/db'"), ["--json"])
    assert "sesame" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (typer.Abort(), 130), (typer.Exit(3), 3), (SystemExit(4), 4), (SystemExit(None), 0)],
)
def test_ways_to_stop_that_are_no_errors(error, code, capsys):
    assert failures.report(error, []) == code
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "args", [["version", "--nope"], ["runs", "list", "--limit", "x"], ["config", "get"], ["--set"], ["config"]]
)
def test_wrong_command_lines(jade, args):
    done = jade(*args, "--json") if args != ["--set"] else jade("--json", *args)
    assert done.code == 2
    error = done.json["error"]
    assert error["code"] == "USAGE"
    assert error["hint"].startswith("jade")
    assert error["hint"].endswith("--help")


def test_options_behind_two_dashes_are_not_ours(capsys):
    failures.report(UsageError("x"), ["ask", "--", "--json"])
    assert capsys.readouterr().out == ""


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    script = "import sys; from jade_graph.cli import main; sys.exit(main(['errors']))"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
