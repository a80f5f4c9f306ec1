"""Packaging a graph: backbone, corpus and settings as one version of an MLflow model.

Invariant: the package is code and data, no pickle: model files as they are, passages or an index, a small JSON of
settings; what it needs from elsewhere (a served model) is named in it. The registry's checks of the backbone hold.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.errors import UsageError, masked
from jade_graph.types import Limits, Passage, Sampling

if TYPE_CHECKING:
    from jade_graph.registry import Registry

MODEL = "jade-graph"
GRAPH, BACKBONE, CORPUS = "graph", "backbone", "corpus"
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a packaged graph.

    Attributes:
        backbone: a spec for `load_backbone` where the package holds no model (`openai:URL#MODEL`), else what it was
            made from.
        corpus: name of a packaged corpus; None: passages, or none at all.
        retriever: a third party's, `SCHEME:REST`, found by its entry point where the package is loaded.
        retrieval: "hybrid", "dense" or "bm25".
        rerank: so many of the first passages are ranked again.
    """

    preset: str
    backbone: str
    corpus: str | None = None
    retriever: str | None = None
    retrieval: str = "bm25"
    rerank: int = 0
    k: int = 5
    constrained: bool = False
    action_tokens: int | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=1, sort_keys=True), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Raises `UsageError` PACKAGE_SCHEMA for a package of another shape."""
        found = dict(json.loads(path.read_text(encoding="utf-8")))
        schema = found.pop("schema", None)
        if schema != _SCHEMA:
            raise UsageError(
                f"the packaged graph has schema {schema!r}, this jade-graph reads {_SCHEMA}.",
                code="PACKAGE_SCHEMA",
                hint="the version of jade-graph that its requirements.txt names",
            )
        return cls(**found)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `JadeGraph`."""
        from jade_graph import plugins
        from jade_graph.workflow.parts import limits_of

        preset = plugins.load("jade.presets", self.preset)
        return {
            "preset": preset,
            "k": self.k,
            "constrained": self.constrained,
            "action_tokens": self.action_tokens,
            "limits": Limits(**self.limits) if self.limits else limits_of(preset),
            "sampling": Sampling(**{"temperature": 0.0, **self.sampling}),
        }


@dataclass(frozen=True, slots=True)
class Packaged:
    """A registered package: `uri` is what `mlflow.pyfunc.load_model` takes."""

    name: str
    number: int
    size: int
    backbone: str

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.number}"


def package_graph(
    registry: Registry,
    recipe: Recipe,
    *,
    model: Path | None = None,
    corpus: Path | None = None,
    passages: Iterable[Passage] | None = None,
    name: str = MODEL,
    aliases: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Packaged:
    """Store a graph as a new version of the MLflow model `name`, and try it before it becomes visible.

    Args:
        registry: where; its tracking URI is what MLflow is to be told.
        model: folder of the backbone; None: `recipe.backbone` names a model that is served elsewhere.
        corpus: folder of an index made by `jade index`, named `recipe.corpus`.
        passages: instead of an index: searched by words.
        aliases: set on the new version, e.g. "champion".
        tell: called with a line about what goes on.

    Raises:
        RegistryError: REGISTRY_*, WEIGHTS_*, TOKENIZER_MISMATCH. BackboneError, RetrievalError: what does not load.
    """
    with tempfile.TemporaryDirectory(prefix="jade-package-") as folder:
        root = Path(folder)
        if model is not None:
            from jade_graph.registry.checking import check_model

            tell("checking the model")
            check_model(model)
        stored = _save(root / "model", recipe, _files(root, recipe, model, corpus, passages))
        tell("loading it as MLflow will")
        _try(stored)
        size = sum(path.stat().st_size for path in stored.rglob("*") if path.is_file())
        tell(f"storing {size / 1e6:,.1f} MB")
        number = _register(registry, stored, name, recipe, tags or {})
    client = registry.place.client
    with registry.place.asking():
        for alias in aliases:
            client.set_registered_model_alias(name, alias, str(number))
    return Packaged(name, number, size, recipe.backbone)


def _files(
    root: Path, recipe: Recipe, model: Path | None, corpus: Path | None, passages: Iterable[Passage] | None
) -> dict[str, str]:
    """What MLflow calls artifacts, by name."""
    recipe.write(root / "graph.json")
    files = {GRAPH: str(root / "graph.json")}
    if model is not None:
        # Copied, since MLflow would store links as links; the name stays, since runs record it.
        copy = root / "copy" / model.resolve().name
        shutil.copytree(model, copy, symlinks=False)
        files[BACKBONE] = str(copy)
    if corpus is not None:
        files[CORPUS] = str(corpus)
    elif passages is not None:
        (root / "passages").mkdir()
        lines = (json.dumps({"id": p.id, "title": p.title, "text": p.text}, ensure_ascii=False) for p in passages)
        (root / "passages" / "passages.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        files[CORPUS] = str(root / "passages")
    return files


def read_passages(folder: Path) -> list[Passage]:
    """The passages of a package without an index."""
    with (folder / "passages.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    return [Passage(row["id"], row["text"], row["title"]) for row in rows]


def _save(folder: Path, recipe: Recipe, files: Mapping[str, str]) -> Path:
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    from jade_graph.settings.manifest import version

    text, number = DataType.string, DataType.double
    rows: list[Any] = [
        ColSpec(text, name) for name in ("answer", "status", "error", "plan", "run_id", "backbone_version")
    ]
    rows += [ColSpec(number, name) for name in ("calls", "tokens", "wall_ms")]
    rows.append(ColSpec(Array(text), "documents"))
    # Without inputs: a schema of columns would let MLflow refuse lists of texts, and a table for one missing question,
    # before the graph sees them. What holds no question is refused by name where it is read.
    signature = ModelSignature(
        outputs=Schema(rows),
        params=ParamSchema(
            [
                ParamSpec("seed", DataType.long, 0),
                ParamSpec("temperature", DataType.double, float(recipe.sampling.get("temperature", 0.0))),
                ParamSpec("concurrency", DataType.long, 64),
            ]
        ),
    )
    with warnings.catch_warnings():
        # The signature is written down, and the package is tried below: an example would add nothing.
        warnings.filterwarnings("ignore", ".*input example", UserWarning)
        warnings.filterwarnings("ignore", ".*[tT]ype hints", UserWarning)
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts=dict(files),
            signature=signature,
            pip_requirements=[f"jade-graph[registry]=={version()}"],
            metadata={"jade.backbone": masked(recipe.backbone), "jade.preset": recipe.preset},
        )
    return folder


def _try(folder: Path) -> None:
    """Load the package as its users will, and answer a question in any way at all."""
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(folder))
    (row,) = model.predict([{"question": "Who?"}])
    if row["status"] not in ("answered", "failed"):
        raise RuntimeError(f"the packaged graph answered {row!r}")


def _register(registry: Registry, folder: Path, name: str, recipe: Recipe, tags: Mapping[str, str]) -> int:
    from mlflow.exceptions import MlflowException

    from jade_graph.registry.promotions import who

    client, experiment = registry.place.client, registry.experiment()
    facts = {"jade.backbone": masked(recipe.backbone), "jade.preset": recipe.preset, "jade.who": who(), **tags}
    with registry.place.asking():
        logged = client.create_logged_model(experiment, name=name, tags=facts)
        client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
        try:
            client.create_registered_model(name, description="Whole JADE Graphs: mlflow.pyfunc.load_model")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        named = {"model_id": logged.model_id} if registry.place.served else {}
        row = client.create_model_version(
            name,
            source=logged.artifact_location,
            tags=facts,
            description=f"{recipe.preset}, {masked(recipe.backbone)}",
            **named,
        )
    return int(row.version)
