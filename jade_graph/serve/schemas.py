"""What answers look like, for the OpenAPI document. Answers are built by `replies` and not validated again.

Invariant: a required field here is in every such answer.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str
    known: list[str] | None = None
    hint: str | None = None
    run_id: str | None = None


class Problem(BaseModel):
    """OpenAI's error shape; `code` is stable and explained on the page of errors."""

    error: ErrorBody


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: str | None


class Choice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: None
    finish_reason: Literal["stop"]


class DocumentBody(BaseModel):
    id: str
    title: str
    score: float | None


class JadeBody(BaseModel):
    run_id: str
    plan: str
    documents: list[DocumentBody]
    backbone_version: str
    corpus_id: str
    graph_hash: str
    recorded: bool
    wall_ms: float
    advice: str
    ignored: list[str]
    steps: list[dict[str, Any]] | None = None


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    jade: JadeBody


class ModelBody(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    jade: dict[str, Any]


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelBody]


class RunBody(BaseModel):
    """A run; trace, steps and the rest are there once it has begun."""

    id: str
    object: Literal["run"]
    status: Literal["queued", "running", "answered", "failed"]
    answer: str | None = None
    error: str | None = None
    usage: Usage | None = None
    trace: list[dict[str, Any]] | None = None
    steps: list[dict[str, Any]] | None = None


class RunRow(BaseModel):
    id: str
    object: Literal["run"]
    question: str
    status: Literal["running", "answered", "failed"]


class RunList(BaseModel):
    object: Literal["list"]
    data: list[RunRow]
    total: int
    has_more: bool


class FeedbackBody(BaseModel):
    id: str
    object: Literal["feedback"]
    run_id: str
    events: int


class Health(BaseModel):
    status: Literal["ok"]
    version: str
    backbone: str
    uptime_s: float
    running: int
    waiting: int
    reload: dict[str, Any] | None = None


class Ready(BaseModel):
    status: Literal["ready"]
