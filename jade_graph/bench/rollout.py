"""Recorded rollouts per second: 64 at once against one after another, and where the CPU time goes.

Invariant: all sides answer questions of one world with one model, one preset and one store, in alternating rounds of
one process, with one thread for the model; the CPU time of a part is counted by the thread that spends it.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jade_graph.backbones import load_backbone
from jade_graph.backbones.hf import HFBackbone
from jade_graph.bench.floor import arithmetic, matmul_flops
from jade_graph.errors import UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.microworld import Difficulty, World, make_questions, make_world
from jade_graph.microworld.search import WordSearch
from jade_graph.rollouts.collecting import collect, tally
from jade_graph.rollouts.crew import Workers
from jade_graph.runs.store import RunStore
from jade_graph.settings.manifest import cores
from jade_graph.sync import run_sync
from jade_graph.types import Ask, Completion, Message, Passage, Question, Run, Sampling

if TYPE_CHECKING:
    from jade_graph.types import Backbone, Retriever

AT_ONCE = 64
CREW = 4


def run(*, model: str = "tiny", quick: bool = False) -> dict[str, float]:
    """Measure rollouts of `model` (a local folder or hub id; "tiny": the bundled model) on a CPU.

    Args:
        quick: two short rounds instead of five, and none with several processes.

    Returns:
        `runs_per_s`: 64 runs at once; `sequential_runs_per_s`: some of the same runs one after another, on the same
        backbone; `generate_runs_per_s`: the same without the backbone's batches and forward pass, each call one
        `model.generate`; `workers_runs_per_s`: in `workers` processes, one for each core, 64 at once in each, from the
        first run's start (how long processes take to begin is not counted). `speedup_over_sequential`,
        `speedup_over_generate`, `workers_speedup_over_sequential`, `workers_speedup_over_generate`: medians of the
        rounds' ratios.

        Shares of the CPU time of the whole process while 64 runs are under way: `outside_model_share`, all but the
        model's batches (forward passes, sampling, decoding of tokens); its parts `tokenizer_share`,
        `retrieval_share`, `recording_share` (handing over and the store's writer thread), `graph_share` (the rest);
        `graph_and_recording_share`, the sum of the last two.

        `floor_ratio`: CPU seconds in the model's batches over their floor, 2 operations for each matrix weight and
        token at this machine's speed for a large matrix product (`generate.arithmetic`). Beginnings that prompts
        share are computed once and counted as often as they are asked for. `cpu_ms_per_run`, `calls_per_run`,
        `prompt_tokens`, `new_tokens` (means of a call), `parameters`, `matmul_gflops`, `rounds`, `runs`: what was
        measured.

    Raises:
        UsageError: BENCH_MODEL, for a model that is not in this process.
    """
    with one_thread():
        return asyncio.run(_measure(model, *((2, 32, 2, 4, 0) if quick else (5, 64, 3, 16, 3))))


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch, so that a thread's own clock holds all that its matrix products cost."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Clock:
    """CPU seconds by part. A part is only ever entered by one thread at a time, and parts do not nest."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def around(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, with the CPU time of the calling thread counted."""

        def timed(*args: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **options)
            finally:
                self.seconds[part] += time.thread_time() - began

        return timed

    def watch(self, backbone: HFBackbone, store: RunStore) -> None:
        """Count what these two do, in whichever thread they do it."""
        batcher: Any = backbone._batcher
        batcher._run = self.around("model", batcher._run)
        for name in ("encode", "encode_text", "decode"):
            setattr(backbone, name, self.around("tokenizer", getattr(backbone, name)))
        # Handing over happens in the runs' thread, writing in the store's: two names, so that none waits for a lock.
        for name, part in (("_put", "handing over"), ("_write", "writing")):
            setattr(store, name, self.around(part, getattr(store, name)))


class _Timed:
    """A retriever whose CPU time is counted; a search has to end without waiting for anything else."""

    def __init__(self, search: WordSearch, clock: _Clock) -> None:
        self._search, self._clock = search, clock

    @property
    def corpus_id(self) -> str:
        return self._search.corpus_id

    async def search(self, query: str, k: int) -> list[Passage]:
        began = time.thread_time()
        found = await self._search.search(query, k)
        self._clock.seconds["retrieval"] += time.thread_time() - began
        return found


class _Generate:
    """The backbone of a plain loop: each call is one `model.generate`, which nothing else runs beside."""

    def __init__(self, backbone: HFBackbone) -> None:
        self._backbone = backbone
        self.version, self.profile = backbone.version, backbone.profile
        self.max_context, self.eos_token_id = backbone.max_context, backbone.eos_token_id

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self._backbone.encode(messages)

    def encode_text(self, text: str) -> list[int]:
        return self._backbone.encode_text(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._backbone.decode(token_ids)

    async def generate(
        self, prompt_token_ids: Sequence[int], sampling: Sampling, *, hint: Ask | None = None
    ) -> Completion:
        del hint
        ends = list(self._backbone.eos_token_ids)
        prompt = torch.tensor([list(prompt_token_ids)])
        torch.manual_seed(sampling.seed)
        with torch.inference_mode():
            out = self._backbone.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=True,
                temperature=sampling.temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=sampling.max_new_tokens,
                eos_token_id=ends,
                pad_token_id=ends[0],
                return_dict_in_generate=True,
                output_scores=True,
            )
            ids = out.sequences[0, prompt.shape[1] :]
            logs = torch.log_softmax(torch.cat(out.scores), -1).gather(-1, ids[:, None])[:, 0]
        ended = int(ids[-1]) in ends
        text = self._backbone.decode(ids[:-1].tolist() if ended else ids.tolist())
        return Completion(text, tuple(ids.tolist()), tuple(logs.tolist()), "stop" if ended else "length", self.version)

    async def aclose(self) -> None:
        return None


async def _measure(model: str, rounds: int, distinct: int, copies: int, few: int, crews: int) -> dict[str, float]:
    """`copies` runs of each of `distinct` questions at once, against one run of each of `few`, `rounds` times; in
    `crews` of them with several processes, too.
    """
    backbone = load_backbone(model, **({} if ":" in model else {"device": "cpu"}))
    if not isinstance(backbone, HFBackbone):
        await backbone.aclose()
        raise UsageError(f"{model!r} is no model in this process.", code="BENCH_MODEL", known=["tiny", "a folder"])
    world = _world()
    questions = make_questions(world, distinct, seed=0)
    clock, speeds = _Clock(), defaultdict[str, list[float]](list)
    runs: list[Run] = []
    used: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder, RunStore(url := Path(folder) / "runs.db") as store:
        retriever: Retriever = _Timed(WordSearch(world.passages), clock)
        clock.watch(backbone, store)
        sides: dict[str, Backbone] = {"many": backbone, "one": backbone, "generate": _Generate(backbone)}
        graphs = {
            side: JadeGraph(served, preset="jade", retriever=retriever, recorder=store)
            for side, served in sides.items()
        }

        async def roll(side: str, number: int) -> list[Run]:
            """A rollout (one to warm up: number -1), whose runs per second are noted."""
            all_ = side == "many" and number >= 0
            some: Sequence[Question] = questions if all_ else _part(questions, number, few)
            began = time.perf_counter()
            found = await collect(
                graphs[side],
                some,
                rollout_id=f"{side}-{number}",
                runs_per_question=copies if side == "many" else 1,
                seed=max(number, 0),
                concurrency=AT_ONCE if side == "many" else 1,
                store=store,
            )
            speeds[side].append(len(found) / (time.perf_counter() - began))
            return found

        async def crew(number: int) -> None:
            """The same in several processes: the questions' runs `CREW` times over, for they are soon done."""
            told = await tally(
                graphs["many"],
                questions,
                rollout_id=f"crew-{number}",
                runs_per_question=copies * CREW,
                seed=number,
                concurrency=AT_ONCE,
                store=store,
                workers=Workers(cores(), partial(_worker, model, url)),
            )
            speeds["crew"].append(told.fresh / told.seconds)

        try:
            for side in sides:  # warm up
                await roll(side, -1)
            speeds.clear()
            for number in range(rounds):
                before, began = dict(clock.seconds), time.process_time()
                runs += await roll("many", number)
                used["all"] += time.process_time() - began
                for part, seconds in clock.seconds.items():
                    used[part] += seconds - before.get(part, 0.0)
                await roll("one", number)
                await roll("generate", number)
                if number < crews:
                    await crew(number)
        finally:
            await backbone.aclose()
    return _figures(backbone.model, runs, used, speeds) | {"rounds": float(rounds)}


def _world() -> World:
    return make_world("test", 0, Difficulty(scale=0.1))


@contextmanager
def _worker(model: str, store: Path) -> Iterator[JadeGraph]:
    """The measured graph, in a process of its own."""
    backbone = load_backbone(model, **({} if ":" in model else {"device": "cpu"}))
    with one_thread(), RunStore(store) as own:
        try:
            yield JadeGraph(backbone, preset="jade", retriever=WordSearch(_world().passages), recorder=own)
        finally:
            run_sync(backbone.aclose())


def _part(questions: Sequence[Question], number: int, count: int) -> list[Question]:
    """`count` questions, others in every round."""
    start = max(number, 0) * count
    return [questions[(start + i) % len(questions)] for i in range(count)]


def _figures(
    model: Any, runs: Sequence[Run], used: dict[str, float], speeds: dict[str, list[float]]
) -> dict[str, float]:
    calls = [t for run in runs for t in run.transitions if t.action_token_ids]
    floor = sum(arithmetic(model, len(t.prompt_token_ids), len(t.action_token_ids)) for t in calls)
    flops = matmul_flops(model.dtype, model.device)
    total = used["all"]
    recording = used["handing over"] + used["writing"]
    graph = total - used["model"] - used["tokenizer"] - used["retrieval"] - recording

    def faster(than: str, what: str = "many") -> float:
        return statistics.median(a / b for a, b in zip(speeds[what], speeds[than], strict=False))

    crew = {}
    if speeds["crew"]:
        crew = {
            "workers": float(cores()),
            "workers_runs_per_s": statistics.median(speeds["crew"]),
            "workers_speedup_over_sequential": faster("one", "crew"),
            "workers_speedup_over_generate": faster("generate", "crew"),
        }
    return {
        "runs_per_s": statistics.median(speeds["many"]),
        "sequential_runs_per_s": statistics.median(speeds["one"]),
        "generate_runs_per_s": statistics.median(speeds["generate"]),
        "speedup_over_sequential": faster("one"),
        "speedup_over_generate": faster("generate"),
        **crew,
        "outside_model_share": 1 - used["model"] / total,
        "tokenizer_share": used["tokenizer"] / total,
        "retrieval_share": used["retrieval"] / total,
        "recording_share": recording / total,
        "graph_share": graph / total,
        "graph_and_recording_share": (graph + recording) / total,
        "floor_ratio": used["model"] / (floor / flops),
        "cpu_ms_per_run": 1000 * total / len(runs),
        "calls_per_run": len(calls) / len(runs),
        "prompt_tokens": statistics.fmean(len(t.prompt_token_ids) for t in calls),
        "new_tokens": statistics.fmean(len(t.action_token_ids) for t in calls),
        "parameters": float(sum(p.numel() for p in model.parameters())),
        "matmul_gflops": flops / 1e9,
        "runs": float(len(runs)),
    }
