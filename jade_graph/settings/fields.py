"""What can be set: one field each, with its default, one-line meaning and alternatives.

Invariant: nothing here reads a file or the environment; `settings.config` does, and checks what it finds by these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jade_graph.types import Limits

MICROWORLD = "microworld"
"""The corpus that the package brings, and that the bundled models read."""
SMOL = "smol"
"""The default model over any other."""


def setting(default: Any, meaning: str, *, choices: Sequence[str] = (), at_least: float | None = None) -> Any:
    """A dataclass field with its one-line meaning, its alternatives, or its least value."""
    return field(default=default, metadata={"meaning": meaning, "choices": tuple(choices), "at_least": at_least})


@dataclass(frozen=True)
class SamplingSettings:
    """How `jade ask` and `jade eval` draw actions."""

    temperature: float = setting(0.0, "0 is greedy; 1 samples the model's own distribution", at_least=0)
    top_p: float = setting(1.0, "sample from the most likely tokens that make up this probability", at_least=0)
    max_new_tokens: int | None = setting(
        None, "upper bound on the tokens of one action; none: each role's own", at_least=1
    )


@dataclass(frozen=True)
class StoreSettings:
    """Where runs are recorded."""

    url: str | None = setting(None, "database of runs, an SQLAlchemy URL; none: runs.db in data_dir")


@dataclass(frozen=True)
class ServeSettings:
    """How `jade serve` answers over HTTP."""

    host: str = setting("127.0.0.1", "address to listen on; other than loopback only with a key")
    port: int = setting(8000, "port to listen on; 0: any free one", at_least=0)
    keys: str | None = setting(None, "API keys, separated by commas; secret")
    keys_file: str | None = setting(None, "file of API keys, one a line: KEY, or NAME KEY")
    presets: str | None = setting(None, "methods to offer, separated by commas; none: all that run on the backbone")
    versions: int = setting(2, "most registered versions held in memory at once", at_least=1)
    concurrency: int = setting(64, "most runs at once", at_least=1)
    queue: int = setting(128, "most requests that wait for a place; more are refused with 429", at_least=0)
    rate: int = setting(0, "most requests a minute of one key; 0: any number", at_least=0)
    max_body_kb: int = setting(256, "most kilobytes of a request's body", at_least=1)
    max_header_kb: int = setting(32, "most kilobytes of a request's line and headers", at_least=1)
    header_s: float = setting(20.0, "seconds in which they must have come", at_least=0.1)
    connections: int = setting(2048, "most connections at once, as far as the process may open them", at_least=1)
    per_address: int = setting(0, "most connections of one address; 0: half of all", at_least=0)
    shared: bool | None = setting(
        None, "keys read and rate each other's runs; none: where there are fewer than two keys"
    )


@dataclass(frozen=True)
class LogSettings:
    """What `jade serve` logs, and every command with --verbose."""

    format: str = setting("text", "a line of text with the time, or a JSON object a line", choices=("text", "json"))
    level: str = setting("info", "least weight of a line", choices=("debug", "info", "warning", "error"))


@dataclass(frozen=True)
class RegistrySettings:
    """Where versions of the backbone are registered."""

    url: str | None = setting(None, "MLflow server or database; none: MLFLOW_TRACKING_URI, else mlflow.db in data_dir")
    model: str = setting("jade-backbone", "name of the registered model")


@dataclass(frozen=True)
class ReloadSettings:
    """How a graph follows an alias of the registry (`backbone = "models:/NAME@ALIAS"`)."""

    poll_s: float = setting(2.0, "seconds between two looks at the alias", at_least=0.01)
    smoke: str | None = setting(
        None, "data set of questions that a new version must answer before it serves; none: four built-in ones"
    )
    legal: float = setting(0.5, "least share of legal actions over the smoke questions", at_least=0)
    f1: float = setting(0.0, "least mean F1 over the smoke questions", at_least=0)


@dataclass(frozen=True)
class Settings:
    """Every setting, resolved."""

    backbone: str = setting(
        "tiny",
        "language model of all roles: tiny, smol (the default over any corpus but microworld), a hub id, a folder, "
        "models:/NAME@ALIAS, or openai:URL#MODEL",
    )
    frozen_backbone: str | None = setting(None, "model of the roles that a preset does not train; none: the same")
    preset: str = setting("jade", "method to run; jade presets list")
    corpus: str = setting(MICROWORLD, "corpus to search; made by jade index")
    data_dir: str = setting(".jade", "folder of corpora and runs")
    k: int = setting(5, "passages per retrieval", at_least=1)
    retrieval: str = setting("hybrid", "how passages are ranked", choices=("hybrid", "dense", "bm25"))
    rerank: int = setting(
        0,
        "so many of the first passages are ranked again by one listwise prompt of the corpus's encoder (E2Rank); 0: "
        "none",
        at_least=0,
    )
    encoder: str = setting("minilm", "text encoder of new corpora")
    seed: int = setting(0, "seed of sampling and of generated data")
    profile: str = setting(
        "auto", "how prompts look; auto: as the model says of itself", choices=("auto", "chat", "brief", "compact")
    )
    thought_tokens: int | None = setting(
        None,
        "tokens that an action may have beyond its role's own, for a model that thinks first; none: 1024, at most a "
        "quarter of its context, where its chat template opens a thought",
        at_least=0,
    )
    dtype: str = setting("auto", "weights' number format", choices=("auto", "float32", "bfloat16", "float16"))
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    batch_size: int = setting(64, "most requests that one batch generates for", at_least=1)
    constrained: bool = setting(False, "let the planner write nothing but legal plans")
    durability: str | None = setting(
        None,
        "when a run with a checkpointer is written: async beside the next step, sync before it, exit at the run's end; "
        "none: as LangGraph does",
        choices=("async", "sync", "exit"),
    )
    api_key: str | None = setting(None, "bearer token sent to an openai: backbone; secret")
    sampling: SamplingSettings = SamplingSettings()
    limits: Limits = field(default_factory=Limits)
    store: StoreSettings = StoreSettings()
    registry: RegistrySettings = RegistrySettings()
    reload: ReloadSettings = ReloadSettings()
    serve: ServeSettings = ServeSettings()
    log: LogSettings = LogSettings()

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir).expanduser()

    @property
    def store_url(self) -> str | Path:
        """Where runs are recorded, with the default put in: a URL, or the path of an SQLite file."""
        return self.store.url or self.data_path / "runs.db"
