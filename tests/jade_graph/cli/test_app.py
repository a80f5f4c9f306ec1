import sys
from importlib.metadata import EntryPoint

import pytest
import typer

from jade_graph import plugins
from jade_graph.cli import app, classes
from jade_graph.cli import packages as sources
from jade_graph.cli.command import Cli, command, single
from jade_graph.settings import manifest


@pytest.fixture
def provide(monkeypatch):
    """Adds entry points of the group "jade.commands", as an installed package would."""

    def add(*found: EntryPoint) -> None:
        real = sources.entry_points
        monkeypatch.setattr(plugins, "_found", lambda group: {e.name: e for e in found if e.group == group})
        monkeypatch.setattr(
            sources, "entry_points", lambda group: [e for e in found if e.group == group] or real(group=group)
        )

    return add


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, classes.GROUP)


def test_help_lists_every_built_in_command_without_importing_it(jade):
    modules = {builtin.module for builtin in app.BUILTINS.values()}
    for module in modules:
        sys.modules.pop(module, None)
    done = jade("--help")
    assert done.code == 0
    for name, builtin in app.BUILTINS.items():
        assert name in done.out
        assert builtin.help in done.out
    assert not modules & set(sys.modules)


def test_without_arguments_it_shows_its_help(jade):
    assert jade().out == jade("--help").out


@pytest.mark.parametrize("name", app.BUILTINS)
def test_every_command_explains_itself_and_has_the_common_options(jade, name):
    done = jade(name, "--help")
    assert done.code == 0
    assert done.err == ""
    shown = {"config": "show", "microworld": "show", "registry": "relocate", "report": "compression"}
    shown |= {"feedback": "fit", "judge": "usefulness"}
    shown |= {"new": "role"}
    groups = shown | dict.fromkeys(("runs", "presets", "plugins", "corpora", "models", "encoders"), "list")
    text = jade(name, groups[name], "--help").out if name in groups else done.out
    for option in ("--json", "--config", "--set", "--quiet", "--verbose"):
        assert option in text


def test_the_version(jade):
    assert jade("--version").out.split() == ["jade", manifest.version()]
    assert jade("--version", "--json").json == {"version": manifest.version()}


@pytest.mark.parametrize("place", ["before", "after"])
def test_common_options_mean_the_same_before_and_after_the_command(jade, place):
    options = ("--json", "--set", "k=3")
    done = jade(*options, "config", "get", "k") if place == "before" else jade("config", "get", "k", *options)
    assert done.json == {"key": "k", "value": 3, "origin": "--set k"}


def test_settings_after_the_command_win_over_those_before(jade):
    assert jade("--set", "k=3", "config", "get", "k", "--set", "k=4").out == "4\n"


def test_an_unknown_command_names_the_nearest(jade):
    done = jade("confg", "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == "UNKNOWN_COMMAND"
    assert "'config'" in done.json["error"]["hint"]


def test_a_command_of_another_package_is_found_described_and_run(jade, provide, tmp_path, monkeypatch):
    (tmp_path / "greeter.py").write_text(
        '"""Greets\npolitely. And more."""\n'
        "from jade_graph.cli.command import command, single\n"
        "app = single()\n"
        "@command(app)\n"
        "def greet(cli, name: str = 'you'):\n"
        '    """Greet."""\n'
        "    cli.out.result({'hello': name, 'k': cli.settings.k}, lambda: f'hello {name}')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    provide(entry("greet", "greeter:app"))
    assert "Greets politely. And more." in jade("--help").out
    assert "greeter" not in sys.modules
    assert jade("greet", "--name", "Ann", "--json", "--set", "k=2").json == {"hello": "Ann", "k": 2}


def test_another_package_adds_a_command_to_a_group(jade, provide):
    provide(entry("presets.dump", "jade_graph.cli.version:app"), entry("presets.list", "json:dumps"))
    assert "dump" in jade("presets", "--help").out
    assert "presets.dump" not in jade("--help").out
    assert jade("presets", "dump", "--json").json["jade"] == manifest.version()
    assert "presets" in jade("presets", "list", "--json").json
    error = jade("presets", "dum", "--json").json["error"]
    assert (error["code"], "dump" in error["known"]) == ("UNKNOWN_COMMAND", True)


@pytest.mark.parametrize("module", ["nowhere", "broken"])
def test_a_broken_command_breaks_only_itself(jade, provide, tmp_path, monkeypatch, module):
    (tmp_path / "broken.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(str(tmp_path))
    provide(entry("bad", f"{module}:app"))
    assert "bad" in jade("--help").out
    done = jade("bad", "--json")
    assert done.code == 7
    assert done.json["error"]["code"] == "PLUGIN_LOAD"


def test_a_command_that_is_no_typer_app(jade, provide):
    provide(entry("odd", "json:dumps"))
    assert jade("odd", "--json").json["error"]["code"] == "PLUGIN_COMMAND"


def test_a_built_in_name_cannot_be_taken(jade, provide):
    provide(entry("version", "json:dumps"))
    done = jade("version", "--json")
    assert done.code == 0
    assert jade("--help").out.count("Print the versions.") == 1


def test_a_commands_own_options_can_stand_for_settings(capsys):
    shown = single()

    @command(shown)
    def show(cli: Cli, k: int | None = None) -> None:
        cli.put("k", k)
        cli.out.result({"k": cli.settings.k, "origin": cli.config.origin("k")}, str)

    typer.main.get_command(shown)(["--k", "9", "--set", "k=3", "--json"], standalone_mode=False)
    assert '"k": 9' in capsys.readouterr().out
