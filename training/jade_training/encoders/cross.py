"""A cross-encoder on the same labels: what a reranker of the same size that reads every pair comes to.

Invariant: for comparison only; nothing that serves reads it. Trained with sentence-transformers' own trainer and loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jade_graph.retrieval.encoder import TransformerEncoder
from jade_training.encoders.slates import Slate
from jade_training.encoders.training import Recipe


def train_cross(encoder: TransformerEncoder, made: Sequence[Slate], recipe: Recipe, out: Path) -> Any:
    """A `CrossEncoder` that begins with the encoder's weights and learns the labels of the slates, pair by pair.

    A folder that holds one already is opened instead.
    """
    import torch
    from datasets import Dataset
    from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    from jade_graph.backbones.weights import quiet
    from jade_training.learner.logits import random_state_kept

    most = (recipe.document_tokens or encoder.max_tokens) + 48  # room for the query
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if (out / "model.safetensors").is_file():
        with quiet():
            return CrossEncoder(str(out), num_labels=1, max_length=most, device=device)
    pairs = [(s.query, text, label) for s in made for text, label in zip(s.documents, s.labels, strict=True)]
    table = Dataset.from_dict(
        {"query": [p[0] for p in pairs], "document": [p[1] for p in pairs], "label": [float(p[2]) for p in pairs]}
    )
    with random_state_kept(), quiet():
        torch.manual_seed(recipe.seed)
        model = CrossEncoder(
            str(encoder.folder), num_labels=1, max_length=most, device=device, model_kwargs={"dtype": torch.float32}
        )
        arguments = CrossEncoderTrainingArguments(
            output_dir=str(out / "unused"), report_to="none", logging_strategy="no", save_strategy="no",
            eval_strategy="no", disable_tqdm=True, dataloader_pin_memory=False, num_train_epochs=recipe.epochs,
            max_steps=recipe.steps or -1, per_device_train_batch_size=recipe.batch * recipe.slate // 2,
            learning_rate=recipe.learning_rate, warmup_steps=recipe.warmup, seed=recipe.seed, use_cpu=device == "cpu",
        )  # fmt: skip
        trainer = CrossEncoderTrainer(
            model=model, args=arguments, train_dataset=table, loss=BinaryCrossEntropyLoss(model)
        )
        kept = ("DefaultFlowCallback", "_OptimizerZeroGradCallback")
        trainer.callback_handler.callbacks = [c for c in trainer.callback_handler.callbacks if type(c).__name__ in kept]
        trainer.train()
        out.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(str(out))
    return model
