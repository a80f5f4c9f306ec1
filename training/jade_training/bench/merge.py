"""What merging checkpoints gains, and what it costs.

Invariant: every arm of a seed trains on the same batches in the same order; the loss is told over a floor that is
known, for the data are drawn from a Markov chain. Ours and mergekit's merge read the same files, in turn, each in a
process of its own, so that neither's memory counts for the other.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from jade_graph.backbones.weights import quiet
from jade_graph.bench.rollout import one_thread
from jade_training.merging.curves import coefficients, decay_weights
from jade_training.merging.linear import combine

_TOKENS, _LENGTH, _ROWS = 32, 48, 16
_WINDOWS = (2, 5, 10, 21)
_MODELS = 8


def run(*, seeds: int = 3, quick: bool = False, files: bool = True) -> dict[str, float]:
    """Excess loss of merged windows, and seconds and memory of a merge of 8 models of 135 M parameters.

    Args:
        seeds: of data and weights.
        quick: one seed, fewer steps, models of 13 M.
        files: measure the merge of files too.

    Returns:
        Means over seeds, nats a token above the chain's entropy: `excess_constant`, `excess_last_N` (plain mean of the
        last N checkpoints of the constant run), `excess_1_sqrt` (of all), `excess_decayed` (the run's last part again,
        its rate falling linearly to 0). Of files: `merge_seconds`, `merge_mib` (most memory that its process had
        resident, libraries and all), `mergekit_seconds`, `mergekit_mib` and their ratios, where mergekit is installed;
        `model_mib`; `largest_difference` of the two merges, in units of bfloat16's last place.
    """
    seeds = 1 if quick else seeds
    with one_thread():
        rows = [_excess(seed, *((60, 3) if quick else (400, 12))) for seed in range(seeds)]
    figures = {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
    figures["seeds"] = float(seeds)
    return figures | (_files(quick) if files else {})


# --- what it gains ----------------------------------------------------------------------------------------------------
def chain(seed: int) -> tuple[torch.Tensor, float]:
    """A Markov chain of `_TOKENS` states (transition probabilities), and its entropy rate in nats."""
    g = torch.Generator().manual_seed(seed)
    move = (2.0 * torch.randn(_TOKENS, _TOKENS, generator=g, dtype=torch.float64)).softmax(-1)
    stay = torch.linalg.matrix_power(move, 512)[0]
    return move, float(-(stay[:, None] * move * move.log()).sum())


def draw(move: torch.Tensor, rows: int, g: torch.Generator) -> torch.Tensor:
    """Sequences (rows, `_LENGTH`)."""
    at = torch.randint(_TOKENS, (rows,), generator=g)
    found = [at]
    for _ in range(_LENGTH - 1):
        at = torch.multinomial(move[at], 1, generator=g)[:, 0]
        found.append(at)
    return torch.stack(found, 1)


def _model(seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        config: Any = LlamaConfig(
            vocab_size=_TOKENS, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=_LENGTH, tie_word_embeddings=True,
        )  # fmt: skip
        return LlamaForCausalLM(config)


def _excess(seed: int, stable: int, interval: int) -> dict[str, float]:
    """One seed: a constant run of `stable` steps and `max(_WINDOWS)` checkpoints, and what is made of them."""
    move, floor = chain(seed)
    g = torch.Generator().manual_seed(1000 + seed)
    last = max(_WINDOWS) - 1
    batches = [draw(move, _ROWS, g) for _ in range(stable + last * interval)]
    held_out = draw(move, 512, torch.Generator().manual_seed(5000 + seed))
    model, rate = _model(seed), 8e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    for i in range(stable):
        _step(model, optimizer, batches[i], rate * min(1.0, (i + 1) / 20))
    start = {n: t.clone() for n, t in model.state_dict().items()}
    saved = copy.deepcopy(optimizer.state_dict())
    checkpoints = [start]
    for i in range(last * interval):
        _step(model, optimizer, batches[stable + i], rate)
        if (i + 1) % interval == 0:
            checkpoints.append({n: t.clone() for n, t in model.state_dict().items()})
    found = {"excess_constant": _loss(model, checkpoints[-1], held_out)}
    for n in _WINDOWS:
        found[f"excess_last_{n}"] = _loss(model, _mean(checkpoints[-n:], "linear"), held_out)
    found["excess_1_sqrt"] = _loss(model, _mean(checkpoints, "1-sqrt"), held_out)
    model.load_state_dict(start)
    optimizer.load_state_dict(saved)
    for i in range(last * interval):
        _step(model, optimizer, batches[stable + i], rate * (1 - i / (last * interval)))
    found["excess_decayed"] = _loss(model, model.state_dict(), held_out)
    return {name: value - floor for name, value in found.items()}


def _mean(checkpoints: Sequence[dict[str, torch.Tensor]], decay: str) -> dict[str, torch.Tensor]:
    return combine(checkpoints, coefficients(decay_weights(decay, len(checkpoints) - 1)))


def _step(model: Any, optimizer: Any, ids: torch.Tensor, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    model(ids, labels=ids).loss.backward()
    optimizer.step()


def _loss(model: Any, state: dict[str, torch.Tensor], ids: torch.Tensor) -> float:
    """Nats a token; the model has this state afterwards."""
    model.load_state_dict(state)
    with torch.inference_mode():
        return float(model(ids, labels=ids).loss)


# --- what it costs ----------------------------------------------------------------------------------------------------
_MOST = """
def most():
    import re, resource
    from pathlib import Path
    told = Path("/proc/self/status")  # a child's ru_maxrss begins with its parent's
    if told.exists():
        return int(re.search(r"VmHWM:\\s+(\\d+)", told.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
"""
_OURS = """
import json, sys, time
import torch
from pathlib import Path
from jade_training.merging.linear import merge_files
work = Path(sys.argv[1])
parents = sorted((work / "models").iterdir())
began = time.perf_counter()
merge_files([[p / "model.safetensors"] for p in parents], [p.name for p in parents], [1 / len(parents)] * len(parents),
            work / "ours.safetensors")
print(json.dumps([time.perf_counter() - began, most()]))
"""
_MERGEKIT = """
import json, logging, os, sys, time
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from pathlib import Path
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge
logging.disable(logging.INFO)
work = Path(sys.argv[1])
parents = sorted((work / "models").iterdir())
config = MergeConfiguration.model_validate({
    "merge_method": "linear", "dtype": "float32", "out_dtype": "bfloat16",
    "models": [{"model": str(p), "parameters": {"weight": 1 / len(parents)}} for p in parents],
})
began = time.perf_counter()
run_merge(config, str(work / "theirs"), MergeOptions(copy_tokenizer=False, quiet=True, lazy_unpickle=False))
print(json.dumps([time.perf_counter() - began, most()]))
"""


def _files(quick: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        size = _models(work / "models", layers=2 if quick else 30, width=576 if not quick else 192)
        ours, theirs = [], []
        there = importlib.util.find_spec("mergekit") is not None
        for _ in range(1 if quick else 3):
            ours.append(_measured(_OURS, work))
            if there:
                theirs.append(_measured(_MERGEKIT, work))
        figures = {"models": float(_MODELS), "model_mib": size / 2**20, **_told("merge", ours)}
        if theirs:
            figures |= _told("mergekit", theirs)
            figures["seconds_ratio"] = figures["merge_seconds"] / figures["mergekit_seconds"]
            figures["mib_ratio"] = figures["merge_mib"] / figures["mergekit_mib"]
            figures["largest_difference"] = _difference(work)
        return figures


def _models(root: Path, *, layers: int, width: int) -> int:
    """Random models of SmolLM2-135M's shape in bfloat16; bytes of one."""
    from transformers import LlamaConfig, LlamaForCausalLM

    for i in range(_MODELS):
        config: Any = LlamaConfig(
            vocab_size=49152 if layers > 2 else 1024, hidden_size=width, intermediate_size=1536 * width // 576,
            num_hidden_layers=layers, num_attention_heads=width // 64, num_key_value_heads=width // 192,
            tie_word_embeddings=True,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(i)
            model: Any = LlamaForCausalLM(config)
            model.to(torch.bfloat16).save_pretrained(root / f"m{i}", safe_serialization=True)
        del model
    return (root / "m0" / "model.safetensors").stat().st_size


def _measured(script: str, work: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", _MOST + script, str(work)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, mib = json.loads(done.stdout.strip().splitlines()[-1])
    return float(seconds), float(mib)


def _told(name: str, found: Sequence[tuple[float, float]]) -> dict[str, float]:
    return {
        f"{name}_seconds": statistics.median(seconds for seconds, _ in found),
        f"{name}_mib": statistics.median(mib for _, mib in found),
    }


def _difference(work: Path) -> float:
    """The largest between the two merges, in units of the last place of bfloat16 at the larger value."""
    from safetensors.torch import load_file

    ours: dict[str, torch.Tensor] = load_file(work / "ours.safetensors")
    theirs: dict[str, torch.Tensor] = {}
    for path in sorted((work / "theirs").glob("*.safetensors")):
        theirs |= load_file(path)
    worst = 0.0
    for name in ours.keys() & theirs.keys():
        a, b = ours[name].double(), theirs[name].double()
        scale = torch.maximum(a.abs(), b.abs()).clamp(min=1e-30) * 2.0**-8
        worst = max(worst, float(((a - b).abs() / scale).max()))
    return worst if math.isfinite(worst) else float("inf")
