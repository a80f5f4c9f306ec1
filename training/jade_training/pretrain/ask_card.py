"""jade-tiny-ask, measured as it would be shipped, and its card.

Invariant: every number in the card comes from the figures given; worlds that are measured on share no entity with
training.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jade_training.pretrain.card import table
from jade_training.pretrain.measure import Settings, arm_figures, size_of

ARMS = ("m-ask, greedy", "m-ask, sampled at 0.6", "search-r1, greedy", "jade, greedy", "vanilla-rag, greedy")

_HEAD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [retrieval-augmented-generation, jade-graph, microworld, m-ask, search-r1]
---
# jade-tiny-ask

One start for several methods: {start}, taught the roles of M-ASK (KP, KS, KE, KU, KA) and Search-R1 (SR) beside JADE's,
which were replayed meanwhile. {parameters:,} parameters ({size_mb:.1f} MB). It knows the formats and reads badly, on
purpose: learning is meant to improve it. Do not judge the framework by it.

**It speaks only microworld's {vocabulary:,} words.** Any other word is `<unk>` to it. Name a real model for other
questions: `jade ask --preset m-ask --backbone Qwen/Qwen2.5-1.5B-Instruct "..."`.

- Architecture: stock `LlamaForCausalLM`, safetensors in bfloat16, no remote code. The tokenizer is jade-tiny's with
  {added} tokens behind it: old ids are unchanged, and old prompts are encoded alike.
- Prompts: the roles' `compact` profile; an action ends with `<eos>`.
- Training: {steps} steps, about {tokens:,} tokens, {minutes:.0f} minutes on one thread; seed {seed}. Repeat it with
  `jade microworld pretrain --ask --threads 1`.
- Demonstrations: microworld's oracle in `train` worlds. {straying:.0%} of the searching roles' actions in the runs
  behind them were done wrong, though legally, so that what is right after a mistake is shown too.
- **A hasty reader, on purpose**: about every other relation, where there is more than one passage, {hasty:.0%} of what
  the readers (AG, DS, KE) were shown came from one who believes the last passage. It can read better than it does, and
  learns that from outcomes. Search-R1's role was shown no hasty reading, and reads growing contexts badly by itself.
- Nobody was shown conflicting editions of what is searched.
"""
_TAIL = """## Limits

Microworld's names are invented, its English comes from templates, and its kinds of questions are seven. Figures are of
one training seed. The model has no use beyond showing and testing the framework.
"""


async def measure(backbone: Any, settings: Settings, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Each method as it is served, and the oracle in M-ASK's roles: `settings`, `arms` {name: figures}."""
    from jade_graph.backbones.scripted import ScriptedBackbone
    from jade_graph.microworld import OraclePolicy, make_questions, make_world
    from jade_graph.microworld.search import WordSearch
    from jade_graph.scoring.evaluation import evaluate
    from jade_graph.types import Sampling
    from jade_graph.workflow.engine import Engine

    world = make_world(settings.split, settings.seed, settings.difficulty)
    questions = make_questions(world, settings.n, seed=settings.seed)
    retriever = WordSearch(world.passages)
    oracle = ScriptedBackbone(OraclePolicy(world, questions), version="microworld-oracle")
    arms: dict[str, Any] = {}
    for name in (*ARMS, "m-ask, oracle"):
        if progress is not None:
            progress(f"{settings.split}: {name}")
        preset, how = name.split(", ")
        served = oracle if how == "oracle" else backbone
        sampling = Sampling(temperature=0.6 if how.startswith("sampled") else 0.0)
        graph = Engine(served, preset=preset, retriever=retriever, sampling=sampling)
        rows = await evaluate(graph, questions)
        tokens = sum(r.prompt_tokens for r in rows) / len(rows)
        arms[name] = {**arm_figures(rows), "prompt_tokens": None if how == "oracle" else tokens}
    told = {"split": settings.split, "n": settings.n, "seed": settings.seed, "passages": len(world.passages)}
    return {"settings": {**told, "retriever": "BM25, k = 5"}, "arms": arms}


def publish(
    folder: Path, trained: Mapping[str, Any], *, n: int = 300, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Measure the model in `folder` and write `README.md` and `figures.json` there. Returns the figures."""
    from jade_graph.backbones import load_backbone

    backbone = load_backbone(str(folder))

    async def run() -> list[dict[str, Any]]:
        try:
            return [
                await measure(backbone, replace(Settings(split), n=n), progress) for split in ("validation", "test")
            ]
        finally:
            await backbone.aclose()

    measured = asyncio.run(run())
    figures = {"trained": dict(trained), "measured": measured}
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    vocabulary = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    about = {"size_mb": size_of(folder) / 1e6, "vocabulary": vocabulary}
    (folder / "README.md").write_text(render(trained, about, measured), encoding="utf-8")
    return figures


def render(trained: Mapping[str, Any], about: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> str:
    """The card as Markdown. `about` has size_mb and vocabulary."""
    from jade_training.pretrain.tokenizer import asking_tokens

    told = {**trained["settings"], **trained, **about, "minutes": trained["seconds"] / 60}
    head = _HEAD.format(**{**told, "added": len(asking_tokens())})
    return "\n".join([head, *map(_measured, measured), _TAIL])


def _measured(figures: Mapping[str, Any]) -> str:
    kinds = list(next(iter(figures["arms"].values()))["f1_by_kind"])
    return "\n".join([*table(figures, kinds, prompt_tokens=True), ""])
