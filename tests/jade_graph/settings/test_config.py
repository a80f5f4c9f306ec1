import logging
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.cli.logs import Text
from jade_graph.errors import ConfigError, StoreError, UsageError, masked
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs.store import RunStore
from jade_graph.settings.config import KEYS, load_config, user_file
from jade_graph.settings.fields import Settings
from jade_graph.settings.manifest import manifest
from jade_graph.types import Limits


def load(folder: Path, *overrides: str, env: dict[str, str] | None = None, **options):
    return load_config(overrides=overrides, env={"HOME": str(folder / "home"), **(env or {})}, folder=folder, **options)


def fails(folder: Path, *overrides: str, **options) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(folder, *overrides, **options)
    return caught.value


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_without_sources_every_value_is_the_default(tmp_path):
    config = load(tmp_path)
    assert config.settings == Settings()
    assert {config.origin(name) for name in KEYS} == {"default"}
    assert config.files == ()


def test_later_sources_win_and_every_value_says_where_it_came_from(tmp_path):
    write(tmp_path / "home/.config/jade/config.toml", 'k = 1\nseed = 1\nbackbone = "user"\npreset = "user"\n')
    write(tmp_path / "jade.toml", '# a comment\nk = 2\nseed = 2\nbackbone = "project"\n')
    config = load(tmp_path, "k=4", env={"JADE_K": "3", "JADE_SEED": "3"})
    assert (config.settings.k, config.settings.seed) == (4, 3)
    assert (config.settings.backbone, config.settings.preset) == ("project", "user")
    assert config.origin("k") == "--set k"
    assert config.origin("seed") == "environment JADE_SEED"
    assert config.origin("backbone").endswith("jade.toml:4")
    assert config.origin("preset").endswith("config.toml:4")


def test_a_named_file_replaces_the_project_file(tmp_path):
    write(tmp_path / "jade.toml", "k = 2")
    other = write(tmp_path / "other.toml", "seed = 7")
    for config in (load(tmp_path, config=other), load(tmp_path, env={"JADE_CONFIG": str(other)})):
        assert (config.settings.k, config.settings.seed) == (5, 7)
        assert config.files == (other,)


def test_xdg_config_home_moves_the_users_file(tmp_path):
    assert user_file({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == Path("/x/jade/config.toml")
    assert user_file({"HOME": "/h"}) == Path("/h/.config/jade/config.toml")


def test_sections_nest_in_files_and_take_double_underscores_in_variables(tmp_path):
    write(tmp_path / "jade.toml", "[limits]\ndeadline_s = 5\n\n[sampling]\ntop_p = 0.5\n")
    config = load(tmp_path, env={"JADE_LIMITS__ROUNDS": "3"})
    assert config.settings.limits == Limits(deadline_s=5.0, rounds=3)
    assert isinstance(config.settings.limits.deadline_s, float)
    assert config.origin("limits.deadline_s").endswith("jade.toml:2")
    assert config.origin("sampling.top_p").endswith("jade.toml:5")
    assert config.chosen("limits") == {"deadline_s": 5.0, "rounds": 3}


@pytest.mark.parametrize(
    "line", ["limits.depth = 1", "limits = { depth = 1 }", '"limits".depth = 1', "[limits]\ndepth=1"]
)
def test_every_way_of_writing_toml_works(tmp_path, line):
    write(tmp_path / "jade.toml", line)
    config = load(tmp_path)
    assert config.settings.limits.depth == 1
    assert re.fullmatch(r".*jade\.toml:[12]", config.origin("limits.depth"))


@pytest.mark.parametrize(
    ("override", "hint"),
    [("bakbone=x", "'backbone'"), ("deadline_s=3", "'limits.deadline_s'"), ("limit.depth=1", "'limits.depth'")],
)
def test_an_unknown_key_names_the_nearest(tmp_path, override, hint):
    error = fails(tmp_path, override)
    assert error.error_code == "CONFIG_UNKNOWN_KEY"
    assert hint in error.hint
    assert override.partition("=")[0] in error.message


def test_an_unknown_key_says_where_it_stands(tmp_path):
    path = write(tmp_path / "jade.toml", "k = 3\n\n[limits]\n# how long\ndeadlin = 3\n")
    assert "jade.toml:5" in fails(tmp_path).message
    path.unlink()
    error = fails(tmp_path, env={"JADE_LIMITS__DEADLIN": "3"})
    assert "environment JADE_LIMITS__DEADLIN" in error.message
    assert "JADE_LIMITS__DEADLINE_S" in error.hint


def test_a_section_is_no_value_and_an_empty_unknown_section_is_an_error(tmp_path):
    assert fails(tmp_path, "limits=3").error_code == "CONFIG_UNKNOWN_KEY"
    write(tmp_path / "jade.toml", "[learner]\n")
    assert "learner" in fails(tmp_path).message


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('k = "5"', "CONFIG_TYPE"),
        ("k = 5.0", "CONFIG_TYPE"),
        ("k = true", "CONFIG_TYPE"),
        ("constrained = 1", "CONFIG_TYPE"),
        ("backbone = 3", "CONFIG_TYPE"),
        ("k = 0", "CONFIG_VALUE"),
        ('retrieval = "hybird"', "CONFIG_VALUE"),
        ("limits.deadline_s = inf", "CONFIG_VALUE"),
        ("k = ", "CONFIG_SYNTAX"),
    ],
)
def test_wrong_values_in_files(tmp_path, text, code):
    write(tmp_path / "jade.toml", text)
    error = fails(tmp_path)
    assert error.error_code == code
    assert "jade.toml" in error.message


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("k=five", "CONFIG_TYPE"),
        ("constrained=maybe", "CONFIG_TYPE"),
        ("sampling.temperature=-1", "CONFIG_VALUE"),
        ("sampling.temperature=nan", "CONFIG_VALUE"),
        ("k", "CONFIG_SET"),
    ],
)
def test_wrong_values_written_as_text(tmp_path, override, code):
    assert fails(tmp_path, override).error_code == code


def test_a_file_that_is_not_there(tmp_path):
    assert fails(tmp_path, config=tmp_path / "no.toml").error_code == "CONFIG_FILE"


def test_optional_values_can_be_taken_back(tmp_path):
    write(tmp_path / "jade.toml", 'frozen_backbone = "x"')
    assert load(tmp_path).settings.frozen_backbone == "x"
    assert load(tmp_path, "frozen_backbone=none").settings.frozen_backbone is None
    assert load(tmp_path, env={"JADE_FROZEN_BACKBONE": ""}).settings.frozen_backbone is None


@pytest.mark.parametrize(("text", "value"), [("true", True), ("ON", True), ("0", False), ("no", False)])
def test_flags_as_text(tmp_path, text, value):
    assert load(tmp_path, f"constrained={text}").settings.constrained is value


@given(value=st.one_of(st.integers(1, 10**9)), temperature=st.floats(0, 100))
def test_numbers_survive_being_written_as_text(value, temperature):
    config = load_config(overrides=[f"k={value}", f"sampling.temperature={temperature!r}"], env={"HOME": "/nowhere"})
    assert (config.settings.k, config.settings.sampling.temperature) == (value, temperature)


def test_secrets_are_masked_wherever_a_value_is_shown(tmp_path):
    config = load(tmp_path, "api_key=sesame", "store.url=postgresql://me:sesame@host/db")
    shown = {row["key"]: row["value"] for row in config.rows()}
    assert "sesame" not in str(shown)
    assert shown["store.url"] == "postgresql://me:***@host/db"
    assert config.settings.store_url == "postgresql://me:sesame@host/db"


def test_masking_leaves_other_urls_alone():
    for url in ("sqlite:///a.db", "openai:http://host:8000/v1#model", "http://me@host/", "http://h/?q=a&page=2&seed=1",
                "postgresql://h/db?sslmode=require&application_name=jade", "what? a=b; tokens=5"):  # fmt: skip
        assert masked(url) == url


@pytest.mark.parametrize(
    "name",
    ["password", "PASSWORD", "passwd", "pwd", "sslpassword", "token", "access_token", "api_key", "api-key", "apikey",
     "key",
     "client_secret", "sig", "X-Amz-Signature", "X-Amz-Credential", "auth", "pass%77ord", "code", "subscription-key"],
)  # fmt: skip
def test_secrets_in_the_query_of_a_url_are_masked_wherever_one_is_shown_or_kept(tmp_path, name):
    url = f"postgresql://h/db?sslmode=require&{name}=sesame&x=1"
    wanted = url.replace("sesame", "***")
    assert masked(f"{url!r} is none") == f"{wanted!r} is none"
    shown = {row["key"]: row["value"] for row in load(tmp_path, f"store.url={url}").rows()}
    assert shown["store.url"] == wanted
    error = UsageError(f"{url} is none", known=[url], hint=f"jade --set store.url={url}", code="X")
    assert "sesame" not in f"{error} {error!r} {error.as_dict()}"
    made = manifest(backbone=f"openai:{url}#m", parts={"deep": (url,)})
    assert made["backbone"] == f"openai:{wanted}#m"
    assert made["parts"] == {"deep": (wanted,)}
    with pytest.raises(StoreError) as caught:
        RunStore(url.replace("postgresql", "nosuch"))
    assert "sesame" not in str(caught.value)
    told = logging.LogRecord("httpx", logging.INFO, "f", 1, "HTTP Request: GET %s", (url,), None)
    assert "sesame" not in Text().format(told)


def test_a_runs_error_holds_no_secret_of_a_url(scripted, tmp_path):
    def fails(ask):
        raise RuntimeError("GET https://me:sesame@host/v1?api_key=sesame failed")

    with RunStore(tmp_path / "runs.db") as store:
        run = JadeGraph(scripted(PL=fails), recorder=store).run("Who?")
        assert run.status == "failed"
        assert "sesame" not in str(store.get(run.id))


def test_every_setting_has_a_meaning_a_variable_and_a_default_of_its_type():
    assert {f"limits.{f.name}" for f in fields(Limits)} <= set(KEYS)
    for key in KEYS.values():
        assert key.meaning
        assert key.variable == key.variable.upper()
        assert isinstance(key.default, key.base) or (key.optional and key.default is None)


def test_the_store_lies_in_the_data_folder_unless_named(tmp_path):
    assert load(tmp_path, "data_dir=/data").settings.store_url == Path("/data/runs.db")
    assert load(tmp_path, "data_dir=~/x").settings.data_path == Path.home() / "x"


def test_asking_for_a_key_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="CONFIG_UNKNOWN_KEY"):
        load(tmp_path).value("nope")


def test_the_project_file_is_found_in_the_folders_above(tmp_path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (tmp_path / "taught").mkdir()
    (tmp_path / "jade.toml").write_text('k = 9\nbackbone = "taught"\nencoder = "minilm"\n')
    found = load(inside)
    assert (found.settings.k, found.files) == (9, (tmp_path / "jade.toml",))
    assert found.settings.data_path == tmp_path / ".jade"  # one data folder, wherever in the project one is
    assert found.settings.backbone == str(tmp_path / "taught")
    assert found.settings.encoder == "minilm"  # a name, no file of the project
    assert load(tmp_path).settings.data_dir == ".jade"
    assert load(inside, "data_dir=here").settings.data_dir == "here"
    (tmp_path / "a" / "jade.toml").write_text('k = 4\ndata_dir = "mine"\n')
    nearer = load(inside)
    assert (nearer.settings.k, nearer.settings.data_path) == (4, tmp_path / "a" / "mine")
    assert nearer.origin("data_dir").endswith("jade.toml:2")
