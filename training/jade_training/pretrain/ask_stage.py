"""jade-tiny-ask: a bundled model taught M-ASK's and Search-R1's roles beside JADE's, so that one start serves all.

Invariant: the weights depend on the start and the settings alone. Old tokens keep their ids and start from the old
embeddings; a new one starts near its relatives, and what a trained model makes of an old prompt changes by training
alone, never by the new vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jade_graph.backbones.folders import BUNDLED, content_version
from jade_training.pretrain.asking import AskCurriculum
from jade_training.pretrain.model import CONSTANT, hold_constant
from jade_training.pretrain.steps import Progress, optimizer_of, take
from jade_training.pretrain.tokenizer import ASKING_ROLES, ROLES, asking_tokens, build_tokenizer
from jade_training.pretrain.train import export

NAME = "jade-tiny-ask"
RELATIVES = {
    "search": "query", "evidence": "answer", "update": "id", "add": "id", "final_answer": "answer", "think": "query",
}  # fmt: skip
"""New tags and the old ones that they resemble; `<a1>` resembles `<q1>`."""
OWN = 0.5
"""The share of a new token's variance that is its own, where it has a relative."""


@dataclass(frozen=True, slots=True)
class AskSettings:
    """Everything that decides the stage beside its start.

    Attributes:
        seed: of new embeddings and data.
        steps, learning_rate: of AdamW; ten steps up, then linearly to a twentieth.
        weight_decay, clip, guide, bf16: as in `train.Settings`.
        straying, hasty, asked: see `AskCurriculum`.
        start: a bundled model's name.
    """

    seed: int = 0
    steps: int = 400
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    guide: float = 0.3
    bf16: bool = True
    straying: float = 0.2
    hasty: float = 0.5
    asked: int = 160
    start: str = "tiny-hasty"

    def rate(self, step: int) -> float:
        """The learning rate at a step."""
        return self.learning_rate * min(1.0, (step + 1) / 10) * (1 - 0.95 * step / max(1, self.steps))


def extend(model: Any, old: Any, new: Any, *, seed: int = 0) -> None:
    """Give a model of the tokenizer `old` the words of `new`, in place. Rows of old ids are kept bit by bit."""
    import torch

    table = model.get_input_embeddings().weight.detach().clone()
    model.resize_token_embeddings(len(new), mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    rows = model.get_input_embeddings().weight
    scale = table[:, 1:].std()
    with torch.no_grad():
        rows[: len(old)] = table
        for token in asking_tokens():
            own = torch.randn(table.shape[1], generator=generator) * scale
            near = relative(token)
            if near is not None:
                own = OWN**0.5 * own + (1 - OWN) ** 0.5 * table[old.convert_tokens_to_ids(near)]
            own[0] = CONSTANT
            rows[new.convert_tokens_to_ids(token)] = own


def relative(token: str) -> str | None:
    """The old token that a new tag resembles; None for a word."""
    if not token.startswith("<"):
        return None
    slash = "/" if token.startswith("</") else ""
    name = token.strip("</>")
    if name == "end":
        return "<id>"
    return f"<{slash}{RELATIVES[name]}>" if name in RELATIVES else f"<{slash}q{name[1:]}>"


def teach(
    out: Path | str,
    settings: AskSettings | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train the stage and save the model under `out` as a Hugging Face folder. A kill repeats it: it takes minutes.

    Args:
        start: the folder to start from, instead of the bundled model that `settings.start` names.

    Returns:
        steps, seconds, tokens, parameters, last loss, the start's version and the settings.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings, out = settings or AskSettings(), Path(out)
    source = start or BUNDLED[settings.start]
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(asking=True)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    extend(model, AutoTokenizer.from_pretrained(str(source), local_files_only=True), tokenizer, seed=settings.seed)
    hold_constant(model)
    s = settings
    curriculum = AskCurriculum(tokenizer, s.seed, s.steps, straying=s.straying, hasty=s.hasty, asked=s.asked)
    began = time.monotonic()
    tokens, loss = take(
        model,
        optimizer_of(model, s.weight_decay),
        curriculum.rows_of,
        s.rate,
        steps=s.steps,
        clip=s.clip,
        bf16=s.bf16,
        guide=lambda step: s.guide * s.rate(step) / s.learning_rate,
        phase="searching roles",
        progress=progress,
    )
    export(model, tokenizer, out, name=NAME, roles=(*ROLES, *ASKING_ROLES))
    return {
        "steps": settings.steps,
        "finished": True,
        "seconds": time.monotonic() - began,
        "tokens": tokens,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": loss,
        "start": content_version(source),
        "settings": asdict(settings),
    }
