"""All that is imported of sentence-transformers: model, trainer, and what the trainer calls.

Invariant: importing this module loads torch and sentence-transformers; nothing else in the package does. Nothing is
sent anywhere, and no model card is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import TrainerCallback

from jade_graph.backbones.weights import quiet
from jade_graph.retrieval.encoder import TransformerEncoder
from jade_training.encoders.losses import infonce, ranknet
from jade_training.encoders.slates import Slate

logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
_POOLING = {"mean": "mean", "cls": "cls", "last": "lasttoken"}


def model_of(encoder: TransformerEncoder) -> SentenceTransformer:
    """The encoder's folder as a trainable model in float32 that pools as the encoder does."""
    with quiet():
        body = Transformer(
            str(encoder.folder),
            max_seq_length=encoder.max_tokens,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            config_kwargs={"trust_remote_code": False},
        )
        pooling = Pooling(encoder.dim, _POOLING[encoder.pooling.mode])
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = SentenceTransformer(modules=[body, pooling, Normalize()], device=device)
    passage, query = encoder.prefixes
    model.prompts = {"query": query, "document": passage}
    return model


class Collator:
    """Rows of slates as ids. A document that several slates have is there once.

    `label` is (queries, documents), NaN where a document is of another query's slate.
    """

    valid_label_columns = ("label",)

    def __init__(self, encoder: TransformerEncoder, slates: Sequence[Slate], document_tokens: int) -> None:
        self._encoder, self._slates = encoder, slates
        self._document_tokens = min(document_tokens, encoder.max_tokens)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        taken = [self._slates[int(row["row"])] for row in rows]
        documents = list(dict.fromkeys(text for slate in taken for text in slate.documents))
        column = {text: i for i, text in enumerate(documents)}
        label = torch.full((len(taken), len(documents)), torch.nan)
        for r, slate in enumerate(taken):
            for text, value in zip(slate.documents, slate.labels, strict=True):
                label[r, column[text]] = value
        passage, query = self._encoder.prefixes
        return {
            **self._ids("query", [query + s.query for s in taken], self._encoder.max_tokens),
            **self._ids("prompt", [s.prompt for s in taken], self._encoder.prompt_tokens),
            **self._ids("document", [passage + text for text in documents], self._document_tokens),
            "label": label,
        }

    def _ids(self, name: str, texts: Sequence[str], most: int) -> dict[str, torch.Tensor]:
        tokenizer = self._encoder._tokenizer()
        ids = self._encoder.pooling.ids(tokenizer, texts, most)
        width = max(map(len, ids))
        pad = tokenizer.pad_token_id or 0
        return {
            f"{name}_input_ids": torch.tensor([[*row, *[pad] * (width - len(row))] for row in ids]),
            f"{name}_attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
        }


class E2RankLoss(torch.nn.Module):
    """InfoNCE of queries + weight * RankNet of prompts, over the documents of a batch."""

    def __init__(self, model: SentenceTransformer, temperature: float, scale: float, weight: float) -> None:
        super().__init__()
        self.model = model
        self.temperature, self.scale, self.weight = temperature, scale, weight
        self._sums: dict[str, float] = {"infonce": 0.0, "ranknet": 0.0}
        self._steps = 0
        self.last: dict[str, float] = {}

    def forward(self, features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor) -> torch.Tensor:
        query, prompt, document = features
        documents = self._embed(document)
        find = infonce(self._embed(query) @ documents.T, labels, self.temperature)
        if self.weight:
            rank = ranknet(self._embed(prompt) @ documents.T, labels, self.scale)
        else:
            rank = torch.zeros((), device=find.device)
        self.last = {"infonce": float(find.detach()), "ranknet": float(rank.detach())}
        self._steps += 1
        for name, value in self.last.items():
            self._sums[name] += value
        return find + self.weight * rank

    def means(self) -> dict[str, float]:
        """Of the steps of this process."""
        each = {name: value / max(1, self._steps) for name, value in self._sums.items()}
        return {"loss": each["infonce"] + self.weight * each["ranknet"], **each}

    def _embed(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = self.model(features)["sentence_embedding"]
        return found


class _Trainer(SentenceTransformerTrainer):
    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None is written."""

    def preprocess_dataset(self, dataset: Any = None, dataset_name: str | None = None) -> Any:
        del dataset_name
        return dataset


def trainer(model: SentenceTransformer, table: Any, collator: Any, loss: E2RankLoss, chosen: dict[str, Any]) -> Any:
    """A trainer that reports nowhere, and writes what `chosen` says."""
    own: dict[str, Any] = {
        "output_dir": "unused", "report_to": "none", "logging_strategy": "no", "save_strategy": "no",
        "eval_strategy": "no", "disable_tqdm": True, "dataloader_pin_memory": False, "save_total_limit": 1,
    }  # fmt: skip
    arguments = SentenceTransformerTrainingArguments(**{**own, **chosen})
    made = _Trainer(model=model, args=arguments, train_dataset=table, data_collator=collator, loss=loss)
    kept = [c for c in made.callback_handler.callbacks if type(c).__name__ in _NEEDED]
    made.callback_handler.callbacks = kept
    return made


_NEEDED = frozenset({"DefaultFlowCallback", "_OptimizerZeroGradCallback"})


def watch(
    loss: E2RankLoss,
    progress: Callable[[int, int], None] | None,
    log: Callable[[Mapping[str, float], int], None] | None,
) -> Any:
    """Tells progress and figures at every step."""

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            del args, control
            if progress is not None:
                progress(state.global_step, state.max_steps)
            if log is not None:
                schedule = rest.get("lr_scheduler")
                rate = {"learning_rate": schedule.get_last_lr()[0]} if schedule is not None else {}
                total = loss.last["infonce"] + loss.weight * loss.last["ranknet"]
                log({"loss": total, **loss.last, **rate}, state.global_step)

    return Watch()
