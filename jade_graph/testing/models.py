"""Tiny random checkpoints: real Hugging Face folders, made in milliseconds, for tests and dry runs.

Invariant: what is written here is loaded by the same code as any published model (safetensors, `AutoTokenizer`,
`AutoModelForCausalLM`); the weights are random but fixed by the seed, so their answers are nonsense that repeats.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jade_graph.errors import UsageError, unknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Arch = Literal["llama", "qwen2"]
ARCHITECTURES: tuple[Arch, ...] = ("llama", "qwen2")
MIN_VOCABULARY = 264

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_CORPUS = (
    "the planner writes a workflow for each question and the executors carry it out",
    "question document answer query who wrote directed founded was born in which city country year",
    "<workflow>QDS</workflow> <workflow>QR,R,DS,AG</workflow> <answer>unknown</answer> <id>Document0</id>",
    "You are an assistant. Answer the question from the documents given below, in a few words.",
)


def make_tokenizer(*, chat: bool, vocab_size: int = 320) -> PreTrainedTokenizerFast:
    """A reversible byte-level BPE tokenizer. `chat` gives it ChatML markers, a template and <|im_end|> as its end."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab_size < MIN_VOCABULARY:
        raise UsageError(
            f"vocab_size {vocab_size} leaves no room for the 256 bytes and the markers.",
            code="MODEL_VOCABULARY",
            hint=f"vocab_size={MIN_VOCABULARY} or more",
        )
    special = ["<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_CORPUS, trainer)
    build: Any = transformers.PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = build(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token="<|im_end|>" if chat else "<|endoftext|>",
        clean_up_tokenization_spaces=False,
        additional_special_tokens=special[2:],
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_random_model(
    folder: str | Path,
    *,
    arch: Arch = "llama",
    chat: bool = False,
    vocab_size: int = 320,
    seed: int = 0,
    layers: int = 2,
    width: int = 32,
    heads: int = 4,
    kv_heads: int | None = None,
    max_context: int = 512,
    spread: float = 0.2,
) -> Path:
    """Write a randomly initialised causal LM with its tokenizer to `folder` and return it.

    Args:
        folder: made if it is not there.
        arch: "llama" or "qwen2" (a current instruct architecture: grouped attention, biases, tied head).
        chat: ChatML template and two end tokens, as instruct models have; else plain text with one.
        vocab_size: tokens of tokenizer and model.
        seed: of the weights; the caller's own random state is left as it was.
        layers, width, heads, kv_heads, max_context: the shape. `kv_heads` defaults to half of `heads` for "qwen2".
        spread: standard deviation of the weights. 0.02 would give a nearly uniform next token.

    Raises:
        UsageError: UNKNOWN_ARCHITECTURE, MODEL_VOCABULARY.
    """
    import torch
    import transformers
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    from jade_graph.backbones.weights import quiet

    if arch not in ARCHITECTURES:
        raise unknown("architecture", arch, ARCHITECTURES, code="UNKNOWN_ARCHITECTURE")
    tokenizer = make_tokenizer(chat=chat, vocab_size=vocab_size)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    ends = [tokenizer.eos_token_id, end] if chat else end
    shape: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads or (heads // 2 if arch == "qwen2" else heads),
        "max_position_embeddings": max_context,
        "initializer_range": spread,
        "tie_word_embeddings": arch == "qwen2",
        "bos_token_id": None,
        "eos_token_id": ends,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = (
            LlamaForCausalLM(LlamaConfig(**shape)) if arch == "llama" else Qwen2ForCausalLM(Qwen2Config(**shape))
        )
    generation_config: Any = transformers.GenerationConfig
    model.generation_config = generation_config(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
