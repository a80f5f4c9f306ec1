"""The README.md of an export: a data card whose YAML header tells `datasets` what to load.

Invariant: every figure on the card is taken from the manifest, and every column of the files is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jade_graph.runs.export.schema import RUNS, TRANSITIONS

HEADER = """---
configs:
- config_name: transitions
  default: true
  data_files:
  - split: train
    path: transitions.parquet
- config_name: runs
  data_files:
  - split: train
    path: runs.parquet
tags:
- jade-graph
- reinforcement-learning
---
"""

LOADING = """```python
from datasets import load_dataset

transitions = load_dataset("FOLDER", split="train")   # one row per action of a role
runs = load_dataset("FOLDER", "runs", split="train")  # one row per question and replica
```

```python
import pandas as pd

transitions = pd.read_parquet("FOLDER/transitions.parquet")
```

```python
from jade_graph.runs.export import read_export

export = read_export("FOLDER")  # runs with their transitions, exactly as they were recorded
```
"""


def card(manifest: Mapping[str, Any], name: str) -> str:
    """The card of an export that was made with this manifest."""
    counts, left_out = manifest["counts"], manifest["left_out"]
    figures = [(key.replace("_", " "), n) for key, n in counts.items()]
    figures += [(f"left out: {why}", n) for why, n in left_out.items()]
    odd = [(key.replace("_", " "), manifest.get(key) or ()) for key in ("runs_left_out", "questions_left_out")]
    figures += [(key, len(named)) for key, named in odd if named]
    made = [
        ("rollout", manifest.get("rollout")),
        ("preset", _listed(manifest["presets"])),
        ("backbone version", _listed(manifest["backbone_versions"])),
        ("graph", _listed(manifest["graph_hashes"])),
        ("corpus", _listed(manifest["corpus_ids"])),
        ("seed", manifest.get("seed")),
        ("sampling", manifest.get("sampling")),
        ("content hash", manifest["content_hash"]),
        ("jade", manifest.get("jade")),
        ("made at", manifest.get("time")),
    ]
    parts = [
        HEADER,
        f"# {name}",
        "Recorded runs of a JADE Graph and the actions of its roles: one row of `transitions.parquet` is one action "
        "with the token ids that the model consumed and produced and the log-probabilities that it sampled with; one "
        "row of `runs.parquet` is one question from start to end. `manifest.json` says what they were made with.",
        "## What is in it",
        _table(("", ""), figures),
        "Only the last attempt of each run is here. A failed run is here with its error; a run that was still running, "
        "or was stopped by whoever started it, is not. An empty reward means that no credit was assigned: it is never "
        "0. Runs without gold answers (`golds` is empty) cannot be scored by them.",
        "## Made with",
        _table(("", ""), [(key, value) for key, value in made if value not in (None, "")]),
        "## Loading",
        LOADING,
        "## transitions.parquet",
        _columns(TRANSITIONS),
        "## runs.parquet",
        _columns(RUNS),
        "Columns of kind `json` hold JSON text: their keys are open.",
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _columns(columns: Mapping[str, tuple[str, str]]) -> str:
    return _table(("column", "kind", "meaning"), [(f"`{n}`", kind, what) for n, (kind, what) in columns.items()])


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _listed(values: Iterable[str]) -> str:
    return ", ".join(value for value in values if value)
