"""A vLLM-like server on a loopback port over a local backbone, for tests. Needs starlette and uvicorn.

Invariant: it speaks the protocol that `OpenAIBackbone` relies on, with the local model's own ids and log-probabilities.
`faults` are answered first, in order: a status code, a (status, headers) pair, "drop" (the connection is cut),
"hang" (no answer until the client gives up), or a function that spoils the body of a good answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from jade_graph.backbones.hf import HFBackbone
from jade_graph.backbones.sampler import Sampler
from jade_graph.errors import BackboneError
from jade_graph.types import Sampling

Fault = int | tuple[int, dict[str, str]] | str | Callable[[dict[str, Any]], Any]


class Server:
    """What a test sees of it: its address, what it was asked, what it is to do wrong."""

    def __init__(self, backbone: HFBackbone, *, root: str) -> None:
        self.backbone = backbone
        self.url = ""
        self.root = root
        self.raw_logprobs = False
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[Fault] = []
        self.abandoned = 0
        self.connections: set[Any] = set()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/completions", self.completions, methods=["POST"]),
            ]
        )

    async def models(self, _: Request) -> Response:
        entry = {"id": "served", "object": "model", "root": self.root, "max_model_len": self.backbone.max_context}
        return JSONResponse({"object": "list", "data": [entry]})

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            return JSONResponse({"error": {"message": f"fault {fault}"}}, fault)
        if isinstance(fault, tuple):
            return JSONResponse({"error": {"message": "fault"}}, fault[0], headers=fault[1])
        if fault == "drop":
            for connection in list(self.connections):
                connection.transport.abort()
            return Response()
        if fault == "hang":
            while not await request.is_disconnected():  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
            self.abandoned += 1
            return Response()
        try:
            answer = await self.answer(body)
        except BackboneError as error:
            return JSONResponse({"error": {"message": str(error)}}, 400)
        if callable(fault):
            answer = fault(answer)
            if isinstance(answer, str):
                return Response(answer)
        if body.get("stream"):
            return StreamingResponse(self.events(answer), media_type="text/event-stream")
        return JSONResponse(answer)

    async def events(self, answer: dict[str, Any]) -> AsyncIterator[bytes]:
        """The answer as a stream of its tokens, as vLLM sends them: the prompt's ids in the first event alone."""
        choice = dict(answer["choices"][0])
        ids, logprobs = choice.get("token_ids") or [], choice["logprobs"]["token_logprobs"]
        for at, logprob in enumerate(logprobs):
            last = at + 1 == len(logprobs)
            told = {"index": 0, "finish_reason": choice["finish_reason"] if last else None}
            told["logprobs"] = {"token_logprobs": [logprob]}
            told["token_ids"] = ids[at : at + 1] or None
            if not at and "prompt_token_ids" in choice:
                told["prompt_token_ids"] = choice["prompt_token_ids"]
            yield b"data: " + json.dumps({**answer, "choices": [told]}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"], body["seed"])
        if body.get("allowed_token_ids"):
            ids, logprobs, finish = self.restricted(body["prompt"], sampling, body["allowed_token_ids"])
        else:
            completion = await self.backbone.generate(body["prompt"], sampling)
            ids, logprobs = list(completion.token_ids), list(completion.logprobs)
            finish = completion.finish_reason
        choice: dict[str, Any] = {
            "index": 0,
            "text": self.backbone.decode(ids),
            "finish_reason": finish,
            "stop_reason": None,
            "logprobs": {"token_logprobs": logprobs, "tokens": [str(token) for token in ids]},
        }
        if body.get("return_token_ids"):
            choice |= {"token_ids": ids, "prompt_token_ids": body["prompt"]}
        return {"id": "cmpl-1", "object": "text_completion", "model": body["model"], "choices": [choice]}

    def restricted(
        self, prompt: list[int], sampling: Sampling, allowed: list[int]
    ) -> tuple[list[int], list[float], str]:
        """One token among those allowed, as a mask over the logits draws it."""
        with torch.inference_mode():
            logits = self.backbone.model(torch.tensor([prompt])).logits[:, -1]
            masked = torch.full_like(logits, float("-inf"))
            masked[:, allowed] = logits[:, allowed]
            tokens, logprobs = Sampler([sampling], torch.device("cpu")).draw(masked, 0)
            if self.raw_logprobs:
                logprobs = torch.log_softmax(logits, -1)[:, tokens].flatten()
        token = int(tokens[0])
        return [token], [float(logprobs[0])], "stop" if token in self.backbone.eos_token_ids else "length"


@contextlib.contextmanager
def serve(server: Server) -> Iterator[Server]:
    """Run on a free port, in a thread, until the block ends."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(server.app(), log_level="critical", lifespan="off", http="h11", ws="none", loop="asyncio")
    running = uvicorn.Server(config)
    running.server_state.connections = server.connections
    thread = threading.Thread(target=lambda: asyncio.run(running.serve([listener])), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    try:
        yield server
    finally:
        running.should_exit = True
        thread.join()
        listener.close()
