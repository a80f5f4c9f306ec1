"""`train_encoder`: a sentence encoder learns to retrieve and to rerank, with sentence-transformers' trainer.

Invariant: the ids that are learned from are those that the runtime's encoder makes of the same texts (`Pooling.ids`);
killed at any time, the same call goes on from its last checkpoint and comes to the same weights.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jade_graph.data.labels import Labelled, digest, query_hash
from jade_graph.errors import ConfigError, DataError, RetrievalError
from jade_graph.retrieval.encoder import TransformerEncoder
from jade_graph.retrieval.listwise import PROMPT_VERSION
from jade_graph.retrieval.pooling import ENCODER_FILE, SHOWN
from jade_training.encoders.losses import SCALE, TEMPERATURE, WEIGHT
from jade_training.encoders.slates import slates

CHECKPOINT = "checkpoint"
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an encoder learns. Defaults are the paper's where it says something, apart from sizes.

    Attributes:
        epochs: passes over the slates, unless `steps` says otherwise.
        batch: queries a step: their slates are each other's negatives.
        slate: documents of a query that are scored.
        document_tokens: longer ones are cut while learning; None: what the encoder reads.
        learning_rate: of AdamW, falling linearly after `warmup` (share of all steps).
        temperature, scale, weight: of InfoNCE, of RankNet's scores, and of RankNet beside InfoNCE; weight 0 is plain
            contrastive learning.
    """

    epochs: float = 1.0
    steps: int | None = None
    batch: int = 8
    slate: int = 8
    document_tokens: int | None = None
    prompt_documents: int = SHOWN
    prompt_tokens: int | None = None
    learning_rate: float = 2e-5
    warmup: float = 0.03
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    temperature: float = TEMPERATURE
    scale: float = SCALE
    weight: float = WEIGHT
    bf16: bool = False
    seed: int = 0


def train_encoder(
    encoder: TransformerEncoder,
    rows: Sequence[Labelled],
    out: Path,
    recipe: Recipe | None = None,
    *,
    save_every: int | None = 50,
    progress: Callable[[int, int], None] | None = None,
    log: Callable[[Mapping[str, float], int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Fine-tune an encoder on graded labels, and write it to `out`, a folder that `load_encoder("hf:OUT")` opens.

    Args:
        rows: those whose documents are all alike teach nothing, and are counted as left out.
        save_every: steps between checkpoints in `out/checkpoint`, gone at the end; None: no checkpoints.
        progress: called with (steps, all). log: with figures (loss, infonce, ranknet, learning_rate) and the step.
        tell: called with a line about what goes on.

    Returns:
        queries, left_out, documents, steps, loss, infonce, ranknet (means over the training), seconds.

    Raises:
        DataError: LABELS_EMPTY, when no row teaches anything.
        ConfigError: ENCODER_CHANGED, `out` holds a checkpoint of other labels, settings or another start.
        RetrievalError: BAD_ENCODER.
    """
    recipe, tell = recipe or Recipe(), tell or (lambda _: None)
    encoder = _prompting(encoder, recipe)
    learned = [row for row in rows if row.teaches]
    if not learned:
        raise DataError(
            f"none of {len(rows)} queries has a document that is better than another.",
            code="LABELS_EMPTY",
            hint="labels above 0 and at 0 for the same query",
        )
    facts = {"recipe": asdict(recipe), "labels": digest(learned), "start": encoder.id, "prompt": PROMPT_VERSION}
    kept, resumed = _checkpoint(out, save_every, facts)
    tell("embedding the documents once, for the order in which prompts show them")
    made = slates(learned, encoder, recipe.slate, progress=progress)
    began = time.monotonic()
    model, trainer, means = _trainer(encoder, made, recipe, kept, save_every, progress, log)
    if resumed is not None:
        tell(f"going on from step {resumed.rpartition('-')[2]}")
    trainer.train(resume_from_checkpoint=resumed)
    figures = {
        "queries": float(len(made)),
        "left_out": float(len(rows) - len(learned)),
        "documents": float(len({d.id for row in learned for d in row.documents})),
        "steps": float(trainer.state.global_step),
        **means(),
        "seconds": time.monotonic() - began,
    }
    _save(model, encoder, recipe, out, facts, figures, sorted({query_hash(row.query) for row in learned}))
    if kept is not None:
        shutil.rmtree(kept)
    return figures


def _prompting(encoder: TransformerEncoder, recipe: Recipe) -> TransformerEncoder:
    """The encoder as it will read prompts once it is trained."""
    import copy
    from dataclasses import replace

    tokens = min(recipe.prompt_tokens or encoder.prompt_tokens, encoder.prompt_tokens)
    out = copy.copy(encoder)
    out._pooling = replace(encoder.pooling, prompt_tokens=tokens, prompt_documents=recipe.prompt_documents)
    return out


def _trainer(
    encoder: TransformerEncoder,
    made: Sequence[Any],
    recipe: Recipe,
    kept: Path | None,
    save_every: int | None,
    progress: Callable[[int, int], None] | None,
    log: Callable[[Mapping[str, float], int], None] | None,
) -> tuple[Any, Any, Callable[[], dict[str, float]]]:
    from datasets import Dataset

    from jade_training.encoders import st
    from jade_training.learner.logits import random_state_kept

    with random_state_kept():
        model = st.model_of(encoder)
        loss = st.E2RankLoss(model, recipe.temperature, recipe.scale, recipe.weight)
        chosen: dict[str, Any] = {
            "per_device_train_batch_size": recipe.batch,
            "num_train_epochs": recipe.epochs,
            "max_steps": recipe.steps or -1,
            "learning_rate": recipe.learning_rate,
            "warmup_steps": recipe.warmup,  # below 1: a share
            "weight_decay": recipe.weight_decay,
            "max_grad_norm": recipe.max_grad_norm,
            "bf16": recipe.bf16,
            "seed": recipe.seed,
            "use_cpu": next(model.parameters()).device.type == "cpu",
        }
        if kept is not None:
            chosen |= {"output_dir": str(kept), "save_strategy": "steps", "save_steps": save_every}
        trainer = st.trainer(
            model,
            Dataset.from_dict({"row": list(range(len(made)))}),
            st.Collator(encoder, made, recipe.document_tokens or encoder.max_tokens),
            loss,
            chosen,
        )
        trainer.add_callback(st.watch(loss, progress, log))
    return model, trainer, loss.means


def _save(
    model: Any,
    encoder: TransformerEncoder,
    recipe: Recipe,
    out: Path,
    facts: Mapping[str, Any],
    figures: Mapping[str, float],
    learned: Sequence[str],
) -> None:
    from jade_graph.backbones.weights import quiet
    from jade_graph.settings.manifest import manifest

    out.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.eval().save_pretrained(str(out), create_model_card=False, safe_serialization=True)
    about = {
        "schema": 1,
        "pooling": encoder.pooling.mode,
        "max_tokens": encoder.max_tokens,
        "prompt": PROMPT_VERSION,
        "prompt_documents": recipe.prompt_documents,
        "prompt_tokens": encoder.prompt_tokens,
        "learned": learned,
    }
    (out / ENCODER_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    described = manifest(
        seeds=[recipe.seed],
        hyperparameters=asdict(recipe),
        data={"labels": facts["labels"]},
        start={"encoder": encoder.id, "spec": encoder.spec},
        metrics=figures,
    )
    (out / MANIFEST).write_text(json.dumps(described, indent=1, default=str) + "\n", encoding="utf-8")


def _checkpoint(out: Path, every: int | None, facts: Mapping[str, Any]) -> tuple[Path | None, str | None]:
    """Where checkpoints go, and the one to go on from. Raises `ConfigError` ENCODER_CHANGED."""
    if every is None:
        return None, None
    folder, now = out / CHECKPOINT, json.loads(json.dumps(facts))
    about = folder / "facts.json"
    if about.exists():
        if json.loads(about.read_text("utf-8")) != now:
            raise ConfigError(
                f"{str(folder)!r} is a checkpoint of other settings, labels or another start.",
                code="ENCODER_CHANGED",
                hint="another --out folder, or --fresh to begin again",
            )
        found = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
        return folder, str(max(found, key=lambda p: int(p.name.rpartition("-")[2]))) if found else None
    folder.mkdir(parents=True, exist_ok=True)
    about.write_text(json.dumps(now, indent=1) + "\n", "utf-8")
    return folder, None


def trainable(encoder: Any) -> TransformerEncoder:
    """Raises `RetrievalError` BAD_ENCODER for an encoder that has no weights to train."""
    if not isinstance(encoder, TransformerEncoder):
        raise RetrievalError(
            f"the encoder {encoder.spec!r} has no weights that could learn.",
            code="BAD_ENCODER",
            hint="--encoder minilm, or hf:FOLDER of a sentence encoder or a causal language model",
        )
    return encoder
