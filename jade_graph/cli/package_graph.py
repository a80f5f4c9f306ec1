"""`jade package-graph`: backbone, corpus and settings as one MLflow model that answers questions anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing

if TYPE_CHECKING:
    from pathlib import Path

app = single()


@command(app)
def package_graph(
    cli: Cli,
    backbone: Annotated[
        str | None, typer.Option(help="tiny, a folder, a hub id, models:/jade-backbone@champion, openai:URL#MODEL.")
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus to search; made by jade index.")] = None,
    preset: Annotated[str | None, typer.Option(help="Method; jade presets list.")] = None,
    name: Annotated[str, typer.Option(help="Name of the MLflow model.")] = "jade-graph",
    alias: Annotated[str, typer.Option(help="Alias of the new version; empty: none.")] = "champion",
) -> None:
    """Store the whole graph in MLflow, for mlflow.pyfunc.load_model, mlflow models serve and mlflow.genai.evaluate.

    The package holds the model's files, the index and the settings, as code and data (no pickle). It is loaded once and
    asked a question before it becomes visible.
    """
    from dataclasses import asdict, replace

    from jade_graph import plugins
    from jade_graph.assembly import limits_for, open_retriever
    from jade_graph.registry import Registry
    from jade_graph.retrieval.manifest import corpus_folder
    from jade_graph.settings.manifest import manifest
    from jade_graph.versions.package import Recipe
    from jade_graph.versions.package import package_graph as package

    for key, value in (("corpus", corpus), ("preset", preset), ("backbone", backbone)):
        cli.put(key, value)
    s = cli.settings
    method = plugins.load("jade.presets", s.preset)
    registry = Registry.of(s)
    with indexing(cli) as progress:
        retriever = open_retriever(s, progress)  # a missing microworld corpus is made
    folder = corpus_folder(s.corpus, s.data_path)
    model, told = _model(cli, registry)
    recipe = Recipe(
        preset=s.preset,
        backbone=told,
        corpus=s.corpus,
        retrieval=s.retrieval,
        rerank=s.rerank,
        k=s.k,
        constrained=s.constrained,
        action_tokens=s.sampling.max_new_tokens,
        limits=asdict(limits_for(cli.config, method)),
        sampling={"temperature": s.sampling.temperature, "top_p": s.sampling.top_p},
        manifest=manifest(preset=s.preset, backbone=told, corpus_id=retriever.corpus_id, k=s.k),
    )
    if not folder.is_dir():  # a third party's retriever: found by its name where the package is loaded
        recipe = replace(recipe, corpus=None, retriever=s.corpus)
    packaged = package(
        registry,
        recipe,
        model=model,
        corpus=folder if folder.is_dir() else None,
        name=name,
        aliases=[alias] if alias else [],
        tell=cli.out.log,
    )
    result = {**asdict(packaged), "uri": packaged.uri, "alias": alias, "tracking_uri": registry.place.shown}
    cli.out.result(result, lambda: _show(result))


def _model(cli: Cli, registry: Any) -> tuple[Path | None, str]:
    """Folder of the backbone (None: it is served elsewhere), and what to call it."""
    from pathlib import Path

    from jade_graph.backbones.folders import content_version, find_folder

    name = cli.settings.backbone
    scheme, _, rest = name.partition(":")
    if name.startswith("models:/"):
        version, folder = registry.fetch(name)
        return folder, f"{version.content} ({version.uri})"
    if rest and scheme != "hf" and not Path(name).exists():
        return None, name
    folder = find_folder(rest if scheme == "hf" else name)
    return folder, content_version(folder)


def _show(result: dict[str, Any]) -> list[str]:
    where = f"models:/{result['name']}@{result['alias']}" if result["alias"] else result["uri"]
    return [
        f"{result['uri']}  {result['size'] / 1e6:,.1f} MB  {result['backbone']}",
        f'mlflow.pyfunc.load_model("{where}").predict([{{"question": "..."}}])',
        f"MLFLOW_TRACKING_URI={result['tracking_uri']} mlflow models serve -m {where} --env-manager local",
    ]
