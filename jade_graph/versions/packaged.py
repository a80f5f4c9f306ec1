"""A whole graph as an MLflow model: what `mlflow.pyfunc.load_model("models:/jade-graph@champion")` gives.

Invariant: a question that fails is a row with its error, never an exception, so one bad question loses no other; rows
come in the order of the questions. Importing this module loads mlflow.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.pyfunc.model import PythonModel

from jade_graph import plugins
from jade_graph.errors import UsageError
from jade_graph.types import Question
from jade_graph.versions.package import BACKBONE, CORPUS, GRAPH, Recipe

if TYPE_CHECKING:
    from jade_graph.types import Retriever, Run
    from jade_graph.workflow.engine import Engine


class Answering:
    """Builds the graph that `package_graph` stored, and asks it."""

    graph: Engine | None = None

    def load_context(self, context: Any) -> None:
        """Build the graph from the model's artifacts. Raises `JadeError` for parts that do not fit together."""
        from jade_graph.backbones import load_backbone
        from jade_graph.workflow.engine import Engine

        files = {name: Path(path) for name, path in context.artifacts.items()}
        recipe = Recipe.read(files[GRAPH])
        self.graph = Engine(
            load_backbone(str(files[BACKBONE]) if BACKBONE in files else recipe.backbone),
            retriever=self._retriever(recipe, files.get(CORPUS)),
            **recipe.options(),
        )

    def _retriever(self, recipe: Recipe, corpus: Path | None) -> Retriever | None:
        if corpus is None:
            scheme, _, rest = (recipe.retriever or "").partition(":")
            return plugins.load("jade.retrievers", scheme)(rest) if scheme else None
        if recipe.corpus is None:
            from jade_graph.retrieval.memory import MemoryRetriever
            from jade_graph.versions.package import read_passages

            return MemoryRetriever(read_passages(corpus), recipe.retrieval, rerank=recipe.rerank)
        from jade_graph.retrieval.corpus import open_corpus
        from jade_graph.retrieval.manifest import corpus_folder

        # A copy: opening an index writes beside it, and the model's store is nobody's to write.
        root = tempfile.mkdtemp(prefix="jade-graph-")
        weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)
        shutil.copytree(corpus, corpus_folder(recipe.corpus, root))
        return open_corpus(recipe.corpus, root, mode=recipe.retrieval, rerank=recipe.rerank)

    def predict(  # type: ignore[no-untyped-def]
        self, context, model_input, params: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Answer questions.

        Args:
            model_input: a table with a column "question" (and "id"), or a list of texts or of records with these keys,
                or such columns by name. A question that is missing is a row that failed.
            params: "seed", "temperature", "concurrency".

        Returns:
            Records with "answer", "status" ("answered" or "failed"), "error", "plan", "documents" (ids), "calls",
            "tokens", "wall_ms", "run_id", "backbone_version", in the order of the questions.

        Raises:
            UsageError: PACKAGE_INPUT.
        """
        from jade_graph.sync import run_sync

        del context
        graph = self.graph
        assert graph is not None, "MLflow calls load_context first"
        asked = questions_of(model_input)
        given = dict(params or {})
        gate = asyncio.Semaphore(max(1, int(given.get("concurrency") or 64)))
        sampling = {"temperature": float(given["temperature"])} if given.get("temperature") is not None else None

        async def one(question: Question) -> dict[str, Any]:
            async with gate:
                if not question.question.strip():
                    return {**_EMPTY, "status": "failed", "error": "EMPTY_QUESTION"}
                return record(await graph.arun(question, seed=int(given.get("seed") or 0), sampling=sampling))

        async def all_() -> list[dict[str, Any]]:
            return list(await asyncio.gather(*map(one, asked)))

        return run_sync(all_())


def record(run: Run) -> dict[str, Any]:
    """A run as a row of `predict`."""
    return {
        "answer": run.answer,
        "status": run.status,
        "error": run.error or "",
        "plan": run.plan,
        "documents": [d.id for d in run.documents],
        "calls": run.counters.calls,
        "tokens": run.counters.tokens,
        "wall_ms": run.wall_ms,
        "run_id": run.id,
        "backbone_version": run.backbone_version,
    }


with warnings.catch_warnings():
    # MLflow advises type hints, and would make a schema of its own of them; this model brings its signature along.
    warnings.filterwarnings("ignore", ".*[tT]ype hints", UserWarning)

    class PackagedGraph(Answering, PythonModel):
        """`Answering` as MLflow wants it."""


_EMPTY: dict[str, Any] = {
    **dict.fromkeys(("answer", "error", "plan", "run_id", "backbone_version"), ""),
    **{"documents": [], "calls": 0, "tokens": 0, "wall_ms": 0.0},
}


def questions_of(given: Any) -> list[Question]:
    """The questions in what MLflow hands over: a table, a list of texts or records, one text or record.

    Raises:
        UsageError: PACKAGE_INPUT.
    """
    if hasattr(given, "to_dict") and hasattr(given, "columns"):
        given = given.to_dict(orient="records")
    elif isinstance(given, Mapping) and given and not isinstance(next(iter(given.values())), str | None):
        given = _rows(given)
    elif isinstance(given, str | Mapping):
        given = [given]
    elif hasattr(given, "tolist"):
        given = given.tolist()
    if not isinstance(given, Sequence):
        raise _wrong(given)
    return [_question(each) for each in given]


def _rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Columns of one length as records. Raises `UsageError` PACKAGE_INPUT."""
    lists = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in columns.items()}
    lengths = {len(value) for value in lists.values() if isinstance(value, Sequence) and not isinstance(value, str)}
    if len(lengths) != 1 or not all(isinstance(value, list | tuple) for value in lists.values()):
        raise _wrong(columns)
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _question(each: Any) -> Question:
    if isinstance(each, str):
        return Question("", each)
    if isinstance(each, Mapping) and ("question" in each or len(each) == 1):
        text, name = each.get("question", next(iter(each.values()))), each.get("id")
        # What is no text is no question: it fails its own row alone.
        return Question("" if _missing(name) else str(name), text if isinstance(text, str) else "")
    if _missing(each):
        return Question("", "")
    raise _wrong(each)


def _missing(value: Any) -> bool:
    """None, NaN and what pandas writes for nothing (`NA`, `NaT`): they are not equal to themselves, or do not say."""
    try:
        return value is None or not bool(value == value)
    except (TypeError, ValueError):  # pandas.NA has no truth value, nor have arrays
        return not hasattr(value, "__len__")


def _wrong(given: Any) -> UsageError:
    return UsageError(
        f"{given!r:.200} holds no question.",
        code="PACKAGE_INPUT",
        known=["a table with a column question", 'records {"question": ..}', "texts"],
        hint='predict([{"question": "Who wrote Dune?"}])',
    )
