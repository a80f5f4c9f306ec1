"""What deploy/ says agrees with the program: metrics and labels, options, settings, paths that are built from."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from jade_graph.cli.app import BUILTINS
from jade_graph.serve.metrics import Metrics
from jade_graph.serve.places import Places
from jade_graph.settings.config import KEYS
from jade_graph.types import Run

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _panels() -> list[dict[str, Any]]:
    return list(json.loads((DEPLOY / "grafana" / "jade.json").read_text())["panels"])


def _expressions() -> list[str]:
    return [r["expr"] for r in _rules()] + [t["expr"] for p in _panels() for t in p["targets"]]


@pytest.fixture(scope="module")
def served() -> dict[str, set[str]]:
    """Every series of /metrics with its labels, once everything that is counted has happened."""
    metrics = Metrics(Places(1, 1))
    metrics.request("/v1/models", "GET", 200, 0.1)
    metrics.refused("SERVER_BUSY")
    metrics.feedback()
    metrics.ended(Run("r", "q", "", "jade", 0))
    found: dict[str, set[str]] = {"up": set()}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("expression", _expressions())
def test_every_expression_asks_for_what_is_served(expression: str, served: dict[str, set[str]]) -> None:
    names = re.findall(r"\b(?:jade|process)_\w+|\bup\b", expression)
    assert names
    assert [name for name in names if name not in served] == []
    labels = {"job", "instance"}.union(*(served[name] for name in names))
    asked = re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", expression)
    asked += [each.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for each in group.split(",")]
    assert set(asked) <= labels
    assert expression.count("(") == expression.count(")")


def test_every_series_of_our_own_is_on_the_dashboard(served: dict[str, set[str]]) -> None:
    told = " ".join(t["expr"] for p in _panels() for t in p["targets"])
    families = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in served}
    assert [name for name in families if name.startswith("jade_") and name not in told] == []
    assert len({p["id"] for p in _panels()}) == len(_panels())


def test_alerts_say_how_bad_and_what_to_do() -> None:
    for rule in _rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "todo"}
        for command in re.findall(r"\bjade (\w+)", rule["annotations"]["todo"]):
            assert command in BUILTINS
    errors = (ROOT / "docs" / "reference" / "errors.md").read_text()
    codes = [code for rule in _rules() for code in re.findall(r'"([A-Z_]{5,})"', rule["expr"])]
    assert codes
    assert [code for code in codes if f"### {code}\n" not in errors] == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules() -> None:
    subprocess.run(["promtool", "check", "rules", str(DEPLOY / "alerts.yml")], check=True)


def _unit(name: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((DEPLOY / name).read_text())
    return unit


def _settings(variables: list[str]) -> list[str]:
    return [v.removeprefix("JADE_").lower().replace("__", ".") for v in variables if v.startswith("JADE_")]


def _options(words: list[str]) -> list[str]:
    """A command line's options that the command does not have."""
    import importlib

    import typer

    command = typer.main.get_command(importlib.import_module(BUILTINS[words[0]].module).app)
    while hasattr(command, "commands"):
        words = words[1:]
        command = command.commands[words[0]]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words if word.startswith("--") and word not in known]


def test_the_service_starts_what_there_is() -> None:
    service = _unit("jade.service")["Service"]
    words = shlex.split(service["ExecStart"])
    assert words[0].endswith("/jade")
    assert _options(words[1:]) == []
    assert [key for key in _settings(re.findall(r"(JADE_\w+)=", service["Environment"])) if key not in KEYS] == []
    assert int(service["TimeoutStopSec"]) > KEYS["limits.deadline_s"].default
    assert (service["UMask"], service["StateDirectoryMode"]) == ("0077", "0700")
    text = (DEPLOY / "jade-backup.service").read_text()
    lines = re.findall(r"/opt/jade/bin/jade ([^'\n]+)", text)
    assert len(lines) == 2
    assert [_options(shlex.split(line.replace("$$(date", "").replace(")", ""))) for line in lines] == [[], []]
    assert _unit("jade-backup.timer")["Timer"]["OnCalendar"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units() -> None:
    for unit in DEPLOY.glob("jade*.timer"):
        subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], check=True)


def test_the_container_file_copies_what_there_is() -> None:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", "")
    stages = re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE)
    assert stages == ["jade", "mlflow"]
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    variables = re.findall(r"(JADE_\w+)=", text)
    assert variables
    assert [key for key in _settings(variables) if key not in KEYS] == []
    assert re.search(r"^USER jade$", text, re.MULTILINE)
    # What the wheel is made of must have been copied before it is made.
    copied = {source for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for source in line.split()[:-1]}
    import tomllib

    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for needed in (*build["packages"], *build["force-include"], "README.md", "LICENSE", "pyproject.toml"):
        assert any(needed == each or needed.startswith(f"{each}/") for each in copied), needed


def test_compose_names_services_settings_and_options_that_there_are() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    for name, service in services.items():
        assert ("image" in service) != ("build" in service), name
        needs = service.get("depends_on", [])
        assert set(needs) <= set(services)
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"]
        for secret in service.get("secrets", []):
            assert secret in compose["secrets"]
        for config in service.get("configs", []):
            assert config["source"] in compose["configs"]
    jade = services["jade"]
    assert _options(jade["command"]) == []
    assert [key for key in _settings(list(jade["environment"])) if key not in KEYS] == []
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", []))
    assert int(jade["stop_grace_period"].removesuffix("s")) > KEYS["limits.deadline_s"].default
    for url in (jade["environment"]["JADE_REGISTRY__URL"], services["mlflow"]["environment"]["MLFLOW_S3_ENDPOINT_URL"]):
        assert url.split("/")[2].split(":")[0] in services
