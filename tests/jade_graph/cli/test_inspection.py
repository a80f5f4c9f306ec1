"""config, version, presets, plugins and doctor: the commands that only look."""

import stat
from pathlib import Path

import pytest

from jade_graph import plugins
from jade_graph.cli import doctor
from jade_graph.cli import packages as sources
from jade_graph.settings import manifest
from jade_graph.settings.config import KEYS


def test_config_show_tells_value_and_origin_of_every_setting(jade, monkeypatch):
    Path("jade.toml").write_text('preset = "vanilla-rag"\n')
    monkeypatch.setenv("JADE_API_KEY", "sesame")
    shown = jade("config", "show", "--set", "k=3", "--json").json
    assert set(shown["settings"]) == set(KEYS)
    assert shown["settings"]["preset"] == {"value": "vanilla-rag", "origin": "jade.toml:1"}
    assert shown["settings"]["k"] == {"value": 3, "origin": "--set k"}
    assert shown["settings"]["api_key"]["value"] == "***"
    assert shown["settings"]["seed"]["origin"] == "default"
    assert shown["files"] == ["jade.toml"]


def test_config_show_for_people(jade):
    text = jade("config", "show", "--set", "constrained=yes").out
    for key in KEYS.values():
        assert key.name in text
        assert " ".join(key.meaning.split()[:3]) in text
    changed = jade("config", "show", "--changed", "--set", "constrained=yes").out
    assert "constrained" in changed
    assert "backbone" not in changed


def test_config_show_a_part(jade):
    assert set(jade("config", "show", "limits", "--json").json["settings"]) == {k for k in KEYS if "limits." in k}
    assert jade("config", "show", "limit", "--json").json["error"]["code"] == "CONFIG_UNKNOWN_KEY"
    assert jade("config", "get", "data_dir").out == ".jade\n"
    assert jade("config", "get", "store.url").out == "none\n"


def test_wrong_settings_stop_a_command_that_reads_them_and_no_other(jade):
    Path("jade.toml").write_text("kk = 1\n")
    assert jade("config", "show").code == 2
    assert jade("version").code == 0


def test_version_lists_the_packages(jade):
    shown = jade("version", "--json").json
    assert shown["jade"] == manifest.version()
    assert shown["packages"]["torch"].startswith("2.")
    assert "torch" in jade("version").out


def test_presets(jade):
    listed = jade("presets", "list", "--json").json["presets"]
    assert [p["name"] for p in listed] == plugins.names("jade.presets")
    assert all(name in jade("presets", "list").out for name in plugins.names("jade.presets"))
    assert jade("presets", "show", "mao-arag", "--json").json["trainable"] == ["PL"]
    assert "QR,R,DS,AG" in jade("presets", "show", "mmoa-rag").out
    assert jade("presets", "show", "jad", "--json").json["error"]["code"] == "UNKNOWN_PRESET"


def test_plugins_says_which_package_brings_what(jade):
    shown = jade("plugins", "list", "roles", "--json").json["plugins"]
    assert {row["name"] for row in shown} == set(plugins.names("jade.roles"))
    assert {row["package"] for row in shown} == {"jade-graph"}
    assert all(row["loads"] for row in shown)
    assert jade("plugins", "list", "role", "--json").json["error"]["code"] == "UNKNOWN_PLUGIN_KIND"


def test_plugins_without_loading_imports_nothing(jade):
    shown = jade("plugins", "list", "--no-load", "--json").json["plugins"]
    assert {row["loads"] for row in shown} == {None}
    assert {row["kind"] for row in shown} >= {"roles", "presets", "backbones"}


def test_a_plugin_that_does_not_load_is_named_with_its_error(jade, monkeypatch):
    from importlib.metadata import EntryPoint

    bad = EntryPoint("bad", "nowhere:ROLE", "jade.roles")
    monkeypatch.setattr(sources, "entry_points", lambda group: [bad] if group == "jade.roles" else [])
    done = jade("plugins", "list", "--json")
    assert done.code == 7
    (row,) = done.json["plugins"]
    assert row["loads"] is False
    assert "nowhere" in row["error"]
    assert "broken" in jade("plugins", "list").out


def test_two_packages_with_one_name_are_a_conflict(jade, monkeypatch):
    from importlib.metadata import EntryPoint

    twice = [EntryPoint("AG", value, "jade.roles") for value in ("json:dumps", "json:loads")]
    monkeypatch.setattr(sources, "entry_points", lambda group: twice if group == "jade.roles" else [])
    (row,) = jade("plugins", "list", "--json").json["plugins"]
    assert "brought by" in row["error"]
    assert any(f.state == "note" and "AG" in f.what for f in doctor._plugins(None))


def test_a_healthy_installation(jade):
    done = jade("doctor", "--json")
    states = {finding["what"]: finding["state"] for finding in done.json["findings"]}
    assert states["packages"] == "ok"
    assert states["torch"] == "ok"
    assert states["data folder"] in ("ok", "note")
    missing = [what for what, state in states.items() if state == "missing"]
    assert done.json["ok"] is (not missing)
    assert done.code == bool(missing)
    assert not Path(".jade").exists()


def test_doctor_reports_wrong_settings_as_a_finding(jade):
    Path("jade.toml").write_text("kk = 1\n")
    done = jade("doctor", "--json")
    assert done.code == 1
    (finding,) = [f for f in done.json["findings"] if f["what"] == "settings"]
    assert finding["state"] == "missing"
    assert "CONFIG_UNKNOWN_KEY" in finding["detail"]


def test_doctor_names_a_package_that_is_missing_or_too_old(jade, monkeypatch):
    from importlib import metadata

    monkeypatch.setattr(metadata, "requires", lambda name: ["torch>=99", "no-such-package>=1", "rich; extra == 'dev'"])
    found = {f.what: f for f in doctor._packages(None)}
    assert found["torch"].state == found["no-such-package"].state == "missing"
    assert found["no-such-package"].fix == 'pip install "no-such-package>=1"'
    assert found["packages"].detail.startswith("0 of 2")


def test_doctor_has_a_line_for_each_extra(monkeypatch):
    from importlib import metadata

    class About:
        def get_all(self, name):
            return ["serve", "odd", "dev"]

    told = ["torch>=2", "rich>=1; extra == 'serve'", "no-such-package>=1; extra == 'odd'"]
    monkeypatch.setattr(metadata, "requires", lambda name: told)
    monkeypatch.setattr(metadata, "metadata", lambda name: About())
    found = {f.what: f for f in doctor._extras(None)}
    assert {what: f.state for what, f in found.items()} == {"extra serve": "ok", "extra odd": "note"}
    assert found["extra odd"].detail == "not installed: no-such-package"
    assert found["extra odd"].fix == 'pip install "jade-graph[odd]"'


def _found(done):
    return {f["what"]: f for f in done.json["findings"]}


def test_doctor_on_what_is_configured_and_not_there(jade, tmp_path):
    options = ["--set", "corpus=notes", "--set", "backbone=models:/jade-backbone@champion"]
    done = jade("doctor", "--json", *options)
    found = _found(done)
    assert done.code == 1
    assert (found["corpus notes"]["state"], found["corpus notes"]["fix"]) == (
        "missing",
        "jade index PATH --corpus notes",
    )
    # Nobody named a model: the default over documents is smol, which is not added here.
    assert _found(jade("doctor", "--json", "--set", "corpus=notes"))["configured"]["detail"].startswith(
        "MODEL_NOT_ADDED"
    )
    (tmp_path / "model").mkdir()
    broken = _found(jade("doctor", "--json", "--set", f"backbone={tmp_path / 'model'}"))
    assert broken["configured model"]["state"] == "missing"


def test_doctor_on_an_open_data_folder_and_a_newer_store(jade):
    from jade_graph import RunStore

    RunStore(Path(".jade/runs.db")).close()
    assert "privacy" not in _found(jade("doctor", "--json"))
    assert "revision" in _found(jade("doctor", "--json"))["runs"]["detail"]
    Path(".jade").chmod(0o755)
    assert _found(jade("doctor", "--json"))["privacy"]["fix"] == "chmod -R go= .jade"
    import sqlite3

    with sqlite3.connect(".jade/runs.db") as db:
        db.execute("UPDATE jade_store_revision SET version_num = '9999'")
    db.close()
    done = jade("doctor", "--json")
    assert (done.code, _found(done)["runs"]["state"]) == (1, "missing")
    assert "STORE_SCHEMA" in _found(done)["runs"]["detail"]


def test_doctor_looks_at_the_champion(jade, monkeypatch):
    from types import SimpleNamespace

    from jade_graph.registry import Registry

    fetched = []
    number = [None]
    monkeypatch.setattr(Registry, "versions", lambda self: [SimpleNamespace(number=3)])
    monkeypatch.setattr(Registry, "current", lambda self: number[0])
    monkeypatch.setattr(Registry, "fetch", lambda self, n: fetched.append(n))
    found = _found(jade("doctor", "--json"))
    assert (found["champion"]["state"], found["champion"]["fix"]) == ("note", "jade promote 3")
    served = _found(jade("doctor", "--json", "--set", "backbone=models:/jade-backbone@champion"))
    assert served["champion"]["state"] == "missing"
    number[0] = 2
    assert _found(jade("doctor", "--json"))["champion"]["detail"].startswith("version 2")
    assert fetched == [2]


def test_doctor_asks_the_configured_model(jade, monkeypatch):
    found = _found(jade("doctor", "--json", "--ask"))["model answers"]
    assert found["state"] == "ok"
    assert "five of five" in found["detail"]
    assert "100% of actions legal" in found["detail"]
    monkeypatch.syspath_prepend(".")
    Path("weak_policy.py").write_text("def policy(ask):\n    return 'nonsense'\n")
    weak = _found(jade("doctor", "--json", "--ask", "--set", "backbone=scripted:weak_policy:policy"))["model answers"]
    assert weak["state"] == "note"
    assert "jade sft" in weak["fix"]


def test_doctor_on_a_folder_that_cannot_be_written(jade, monkeypatch, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    (finding,) = [
        f
        for f in jade("doctor", "--set", f"data_dir={folder}", "--json").json["findings"]
        if f["what"] == "data folder"
    ]
    assert finding["state"] == "missing"
    assert stat.S_ISDIR(folder.stat().st_mode)


@pytest.mark.parametrize(
    ("module", "summary"),
    [
        ("jade_graph.cli", "The `jade` command."),
        ("jade_graph.nope", ""),
        ("nowhere.at.all", ""),
        ("sys", ""),
    ],
)
def test_a_module_is_described_without_being_imported(module, summary):
    assert sources.summary(module) == summary


def test_doctor_finds_the_bundled_model_corpora_and_runs(jade, monkeypatch, tmp_path):
    from jade_graph import RunStore, backbones, build_corpus
    from jade_graph.types import Passage

    monkeypatch.setattr(backbones, "TINY", tmp_path / "nothing")
    before = {f["what"]: f for f in jade("doctor", "--json").json["findings"]}
    assert before["bundled model"]["fix"] == "jade microworld pretrain"
    assert (before["runs"]["detail"], before["corpora"]["detail"][:8]) == ("none yet", "none yet")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text("{}")
    monkeypatch.setattr(backbones, "TINY", tmp_path / "tiny")
    build_corpus([Passage("1", "text")], "notes", ".jade", "hash:64")
    RunStore(Path(".jade/runs.db")).close()
    after = {f["what"]: f for f in jade("doctor", "--json").json["findings"]}
    assert after["bundled model"]["state"] == "ok"
    assert after["corpus notes"]["detail"].startswith("1 passages, hash-64")
    assert after["runs"]["detail"].startswith("0 in ")


def test_doctor_tells_what_was_found_of_a_model(jade, tmp_path):
    from jade_graph.testing.models import CHAT_TEMPLATE, make_random_model

    folder = make_random_model(tmp_path / "thinker", arch="qwen2", chat=True)
    template = CHAT_TEMPLATE.replace("in messages %}", "in messages if message['role'] != 'system' %}")
    template = template.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    (folder / "chat_template.jinja").write_text(template)
    found = {f["what"]: f for f in jade("doctor", "--backbone", str(folder), "--json").json["findings"]}
    assert "folded" in found["system text"]["detail"]
    assert found["end tokens"]["detail"] == "3 '<|im_end|>', 1 '<|endoftext|>'"
    assert "opens a thought (<think> .. </think>), 128 tokens" in found["thinking"]["detail"]
    assert found["context"]["detail"] == "512 tokens"
    assert found["batches"]["state"] == "ok"
    assert "tokens/s" in found["speed"]["detail"]
    lost = {f["what"]: f for f in jade("doctor", "--backbone", "nowhere/at/all", "--json").json["findings"]}
    assert "BACKBONE_NOT_FOUND" in lost["backbone"]["detail"]


def test_the_doctor_says_which_settings_file_is_read(jade, monkeypatch):
    def told() -> str:
        findings = jade("doctor", "--json").json["findings"]
        return next(f["detail"] for f in findings if f["what"] == "settings")

    assert "no jade.toml here or above" in told()
    Path("jade.toml").write_text("k = 3\n")
    project = Path.cwd() / "jade.toml"
    Path("deep/down").mkdir(parents=True)
    monkeypatch.chdir("deep/down")
    assert told() == str(project)
