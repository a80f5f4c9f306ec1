"""A local Hugging Face causal LM that all concurrent runs share.

Invariant: requests of any thread or event loop are batched by one worker; each batch runs on one set of weights, read
once at its start, and every completion names them. A prompt that does not fit is refused before it is queued. A model
whose batches do not compute what it computes is decoded row by row (`fidelity`).
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from jade_graph.backbones import folders, weights
from jade_graph.backbones.batcher import DEFAULT_BATCH, Batcher, Job, Signals, Stats
from jade_graph.backbones.checks import check_prompt, check_sampling
from jade_graph.backbones.codec import Codec
from jade_graph.backbones.decoding import Ending, decode
from jade_graph.backbones.fidelity import Ability, PlainSession, ability
from jade_graph.backbones.forward import HFSession, Session
from jade_graph.backbones.lean import LeanModel
from jade_graph.backbones.lean_session import LeanSession
from jade_graph.backbones.watching import Watching
from jade_graph.errors import BackboneError
from jade_graph.types import Ask, Completion, Message, Sampling, Thought, Watch

if TYPE_CHECKING:
    from pathlib import Path

# Most prompt tokens in one forward pass, padding included: on a CPU what the caches hold, else what keeps it busy.
_CPU_BUDGET = 1024
_ACCELERATOR_BUDGET = 16384


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run: weights, text side, version. A batch uses one of these from start to end."""

    model: Any
    codec: Codec
    version: str
    max_context: int
    vocabulary: int
    lean: LeanModel | None = None
    ability: Ability = "batches"

    def session(self) -> Session:
        """An empty batch."""
        if self.ability == "plain":
            return PlainSession(self.model)
        budget = _CPU_BUDGET if self.model.device.type == "cpu" else _ACCELERATOR_BUDGET
        if self.lean is not None:
            return LeanSession(self.lean, budget)
        return HFSession(self.model, budget)


@dataclass(slots=True)
class _Slot:
    """What the worker reads once per batch; nobody joins a batch after another model was put in."""

    loaded: Loaded


def _run(slot: _Slot, cap: int, jobs: Sequence[Job], signals: Signals, stats: Stats) -> None:
    loaded = slot.loaded
    with torch.inference_mode():
        session = loaded.session()
        decode(
            jobs,
            session,
            ending=Ending(loaded.codec.eos_token_ids, loaded.codec.decode, loaded.version),
            cap=cap,
            device=loaded.model.device,
            signals=signals,
            stats=stats,
            current=lambda: slot.loaded is loaded,
        )
        session.close()


def out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch may do. Empties the accelerator's cache if so."""
    text = str(error).lower()
    short = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )
    if short and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return short


class HFBackbone:
    """`Backbone` over a transformers causal LM in this process. Use `load` to make one.

    Args:
        loaded: the model.
        max_batch: most requests decoded together.
    """

    counts_draws = True  # a seed's numbers go by the token: see `Sampling.drawn`
    streams = True

    def __init__(self, loaded: Loaded, *, max_batch: int = DEFAULT_BATCH) -> None:
        self._slot = _Slot(loaded)
        self._batcher = Batcher(partial(_run, self._slot, max_batch), cap=max_batch, splits=out_of_memory)
        # A backbone that is dropped, or alive at exit, stops its worker all the same.
        self._finalizer = weakref.finalize(self, self._batcher.close)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        profile: str | None = None,
        max_context: int | None = None,
        max_batch: int = DEFAULT_BATCH,
        lean: bool = True,
        prefix_cache_mb: int | None = None,
        revision: str | None = None,
        template_options: Mapping[str, Any] | None = None,
        thought_tokens: int | None = None,
    ) -> HFBackbone:
        """Load a model folder or hub id (safetensors, no remote code).

        Args:
            name: a local folder, or a hub id.
            device: "cuda", "mps" or "cpu"; None: the first of these that is there.
            dtype: "float32", "bfloat16" or "float16"; None: see `weights.choose_dtype`.
            profile: "chat", "brief" or "compact"; None: what jade.json says, else "chat" where there is a
                chat template.
            max_context: prompt plus action in tokens; None: what the model was made for.
            max_batch: most requests decoded together.
            lean: run Llama-shaped models on the CPU through `backbones.lean`, where it agrees with transformers.
            prefix_cache_mb: most memory for the keys and values of prompts that later ones may begin with, where
                `lean` runs the model; None: 64, of models from 100 million parameters on 512.
            revision: of a hub model.
            template_options: further variables of the chat template.
            thought_tokens: see `Codec.make_room`.

        Raises:
            BackboneError: BACKBONE_NOT_FOUND, BACKBONE_NO_SAFETENSORS, BACKBONE_LOAD, BACKBONE_DEVICE,
                BACKBONE_DTYPE, BACKBONE_PROFILE, BACKBONE_TEMPLATE, BACKBONE_NO_END_TOKEN,
                BACKBONE_ARCHITECTURE.
        """
        folder = folders.find_folder(str(name), revision=revision)
        target = weights.choose_device(device)
        chosen = weights.choose_dtype(dtype, target, folders.count_parameters(folder))
        codec = Codec.from_folder(folder, profile=profile, template_options=template_options)
        model = weights.load_model(folder, target, chosen)
        short = str(name).rstrip("/").rsplit("/", 1)[-1] if folder.resolve().parent.name == "snapshots" else None
        return cls.from_model(
            model,
            codec,
            version=folders.content_version(folder, short),
            max_context=max_context,
            max_batch=max_batch,
            lean=lean,
            constant=True,
            prefix_cache_mb=prefix_cache_mb,
            thought_tokens=thought_tokens,
        )

    @classmethod
    def from_model(
        cls,
        model: Any,
        codec: Codec,
        *,
        version: str,
        max_context: int | None = None,
        max_batch: int = DEFAULT_BATCH,
        lean: bool = True,
        constant: bool = False,
        prefix_cache_mb: int | None = None,
        thought_tokens: int | None = None,
    ) -> HFBackbone:
        """Serve a model that is already in memory (a learner's, a test's). The caller names its version.

        Args:
            constant: nobody changes the weights while they are served here, so that what was computed of one batch's
                prompts is true for the next. The rest as for `load`.

        Raises:
            BackboneError: BACKBONE_ARCHITECTURE, for models without a key-value cache (pure state-space ones).
        """
        if "past_key_values" not in inspect.signature(model.forward).parameters:
            raise BackboneError(
                f"{type(model).__name__} keeps no key-value cache, which batched decoding needs.",
                code="BACKBONE_ARCHITECTURE",
                hint="an attention or hybrid model, or a server: openai:URL#MODEL",
            )
        vocabulary = int(model.get_input_embeddings().weight.shape[0])
        limit = max_context or weights.max_context(model, codec.tokenizer)
        codec.make_room(limit, thought_tokens)
        fast = LeanModel.of(model, constant=constant, prefix_cache_mb=prefix_cache_mb) if lean else None
        able: Ability = "batches" if fast is not None else ability(model)
        loaded = Loaded(model, codec, version, limit, vocabulary, fast, able)
        return cls(loaded, max_batch=max_batch if able == "batches" else 1)

    @property
    def version(self) -> str:
        return self._slot.loaded.version

    @property
    def profile(self) -> str:
        return self._slot.loaded.codec.profile

    @property
    def max_context(self) -> int:
        return self._slot.loaded.max_context

    @property
    def eos_token_id(self) -> int:
        return self._slot.loaded.codec.eos_token_id

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends an action; instruct models have several."""
        return self._slot.loaded.codec.eos_token_ids

    @property
    def thought(self) -> Thought | None:
        """How the model thinks before it answers, as far as its template tells."""
        return self._slot.loaded.codec.thought

    @property
    def ability(self) -> Ability:
        """Whether requests are decoded together, a row at a time, or without cache: see `fidelity`."""
        return self._slot.loaded.ability

    @property
    def model(self) -> Any:
        """The transformers model in use."""
        return self._slot.loaded.model

    @property
    def codec(self) -> Codec:
        """The text side of the model in use."""
        return self._slot.loaded.codec

    @property
    def tokenizer(self) -> Any:
        return self._slot.loaded.codec.tokenizer

    @property
    def stats(self) -> dict[str, int]:
        """Counts of what the worker has done: see `batcher.Stats`."""
        return asdict(self._batcher.stats)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self._slot.loaded.codec.encode(messages)

    def encode_text(self, text: str) -> list[int]:
        return self._slot.loaded.codec.encode_text(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._slot.loaded.codec.decode(token_ids)

    async def generate(
        self,
        prompt_token_ids: Sequence[int],
        sampling: Sampling,
        *,
        hint: Ask | None = None,
        watch: Watch | None = None,
    ) -> Completion:
        """Sample one action: see `types.Backbone`. `hint` is ignored.

        Raises:
            BackboneError: CONTEXT_OVERFLOW, BACKBONE_PROMPT, BACKBONE_SAMPLING, BACKBONE_CHOICES, BACKBONE_CLOSED,
                BACKBONE_GENERATION, BACKBONE_OUT_OF_MEMORY, BACKBONE_NOT_FINITE.
        """
        del hint
        loaded = self._slot.loaded
        check_sampling(sampling, frozenset(loaded.codec.eos_token_ids))
        check_prompt(prompt_token_ids, sampling, loaded.max_context, loaded.vocabulary)
        if watch is None:
            return await asyncio.wrap_future(self._batcher.submit(tuple(prompt_token_ids), sampling).future)
        with Watching(watch, loaded.codec.decode) as watching:
            job = self._batcher.submit(tuple(prompt_token_ids), sampling, watching)
            done = await asyncio.wrap_future(job.future)
            watching.end(done.text)
        return done

    async def aclose(self) -> None:
        """Stop the worker. Requests in flight fail with BACKBONE_CLOSED; closing twice does nothing."""
        await asyncio.to_thread(self._batcher.close)
