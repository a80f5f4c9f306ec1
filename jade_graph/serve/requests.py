"""What requests may hold, and how a body becomes one.

Invariant: a body is strict JSON in UTF-8 that fits its model, or it is refused with the field that is wrong; no unknown
field is passed over in silence. What OpenAI's clients send and a graph has no use for is named in `jade.ignored`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from jade_graph.serve.problems import RequestError
from jade_graph.types import Limits

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SEED = 2**63 - 1
Metadata = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]]


def _require_false(value: bool) -> bool:
    if value:
        raise ValueError("is not supported")
    return value


# Not Literal[False], which 0 equals.
No = Annotated[bool, AfterValidator(_require_false), WithJsonSchema({"const": False})]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Lenient(BaseModel):
    """For parts that clients send back as they got them: what is unknown in them means nothing here."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_CONTENT = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}, {"type": "null"}]}


class ChatMessage(Lenient):
    """Only the last one is read: see `question_of`. Of earlier ones nothing is judged."""

    role: Annotated[Any, WithJsonSchema({"type": "string"})] = None
    content: Annotated[Any, WithJsonSchema(_CONTENT)] = None


class LimitsBody(Strict):
    """Lower limits for this run; the server's own cannot be raised."""

    rounds: int | None = Field(None, ge=0)
    depth: int | None = Field(None, ge=0)
    sub_questions: int | None = Field(None, ge=0)
    retrievals: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    deadline_s: float | None = Field(None, gt=0)
    decomposition_width: int | None = Field(None, ge=1)

    def below(self, own: Limits) -> dict[str, Any]:
        """What was asked for. Raises `RequestError` LIMIT_RAISED."""
        asked = self.model_dump(exclude_none=True)
        for name, value in asked.items():
            if value > getattr(own, name):
                raise RequestError(
                    f"limits.{name} is {value!r}: this server allows {getattr(own, name)!r}.",
                    code="LIMIT_RAISED",
                    param=f"limits.{name}",
                )
        return asked


class JadeOptions(Strict):
    """Our own part of a chat request (`extra_body={"jade": {...}}` with OpenAI's client)."""

    events: bool | None = Field(False, description="the run's steps: as events of a stream, or as `jade.steps`")
    tokens: bool | None = Field(
        True, description="of a stream: the answer while it is written; false: in one piece, which is never taken back"
    )
    plan: str | None = Field(None, description="force this workflow on the question, e.g. R,AG")
    limits: LimitsBody | None = None


class StreamOptions(Strict):
    include_usage: bool | None = False
    include_obfuscation: bool | None = False


class TextFormat(Strict):
    type: Literal["text"]


class ChatRequest(Strict):
    """`POST /v1/chat/completions`. The question is the last message, which must be the user's."""

    model_config = _example(messages=[{"role": "user", "content": "Who wrote the annals?"}])

    model: str | None = Field("", max_length=200, description="PRESET, or PRESET@VERSION; empty: the server's own")
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), le=_SEED)
    metadata: Metadata | None = Field(None, max_length=16)
    user: str | None = Field(None, max_length=200)
    jade: JadeOptions | None = None
    # Allowed in the one form that asks for nothing.
    n: int | None = Field(None, ge=1, le=1)
    logprobs: No | None = None
    top_logprobs: int | None = Field(None, ge=0, le=0)
    response_format: TextFormat | None = None
    modalities: list[Literal["text"]] | None = None
    tools: list[Any] | None = Field(None, max_length=0)
    functions: list[Any] | None = Field(None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    function_call: Literal["none", "auto"] | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    frequency_penalty: float | None = Field(None, ge=0, le=0)
    presence_penalty: float | None = Field(None, ge=0, le=0)
    stop: list[str] | None = Field(None, max_length=0)
    # Taken and named as ignored: they say how much to write or how to bill, and change no answer.
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None


IGNORED = (
    "max_tokens",
    "max_completion_tokens",
    "parallel_tool_calls",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "verbosity",
)


class RunRequest(Strict):
    """`POST /v1/runs`."""

    model_config = _example(question="Who wrote the annals?", wait=True, plan="R,AG")

    question: str
    model: str | None = Field("", max_length=200, description="PRESET, or PRESET@VERSION; empty: the server's own")
    wait: bool | None = Field(False, description="answer when the run has ended, not when it has begun")
    seed: int | None = Field(None, ge=-(2**63), le=_SEED)
    plan: str | None = Field(None, description="force this workflow on the question, e.g. R,AG")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    limits: LimitsBody | None = None
    metadata: Metadata | None = Field(None, max_length=16)


class SeenRequest(Strict):
    """One passage of a run as its user saw it."""

    document: str = Field(max_length=500)
    rank: int | None = Field(None, ge=1, le=1000, description="where it stood; else its place in the run's documents")
    shown: bool = True
    clicked: bool = False
    cited: bool = False
    dwell: float | None = Field(None, ge=0, le=86_400, description="seconds")
    rating: float | None = Field(None, ge=-1, le=1)


class FeedbackRequest(Strict):
    """`POST /v1/feedback`."""

    run_id: str = Field(min_length=1, max_length=64, description="also as the id of a chat completion: chatcmpl-..")
    rating: float | None = Field(None, ge=-1, le=1, description="-1 (bad) to 1 (good)")
    clicked: list[Annotated[str, Field(max_length=500)]] = Field([], max_length=200, description="document ids")
    used: list[Annotated[str, Field(max_length=500)]] = Field([], max_length=200, description="document ids")
    comment: str = Field("", max_length=4000)
    user: str | None = Field(None, min_length=1, max_length=500, description="who says it; kept as a pseudonym")
    session: str | None = Field(None, min_length=1, max_length=500, description="one showing of the list")
    events: list[SeenRequest] = Field(
        [], max_length=200, description="what was shown, exactly; else clicks count on all documents in order"
    )


BODIES: tuple[type[Strict], ...] = (ChatRequest, RunRequest, FeedbackRequest)
Body = TypeVar("Body", bound=Strict)


def read(kind: type[Body], data: bytes) -> Body:
    """The body as a request. Raises `RequestError` BODY_NOT_VALID, UNSUPPORTED_PARAMETER, BAD_PARAMETER."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _named(kind, error) from None


def question_of(messages: list[ChatMessage]) -> str:
    """The last message's text. Raises `RequestError` LAST_MESSAGE."""
    last, where = messages[-1], f"messages.{len(messages) - 1}"
    if last.role not in _ROLES:
        raise RequestError(
            f"'{where}.role' is {str(last.role)[:40]!r}.", code="BAD_PARAMETER", known=_ROLES, param=f"{where}.role"
        )
    if last.role != "user":
        raise RequestError(
            f"the last message is by {str(last.role)[:40]!r}: the question is the last message, and it must be the "
            "user's.",
            code="LAST_MESSAGE",
            param=f"{where}.role",
        )
    return require_text(_text_of(last.content, f"{where}.content"), f"{where}.content")


def _text_of(content: Any, param: str) -> str:
    """The text of a message's content; of a text part what is unknown means nothing here (`cache_control`).

    Raises `RequestError` BAD_PARAMETER.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise _no_text(param, content)
    for number, part in enumerate(content):
        if not isinstance(part, dict):
            raise _no_text(f"{param}.{number}", part)
        if part.get("type") != "text":
            raise _no_text(f"{param}.{number}.type", part.get("type"))
        if not isinstance(part.get("text"), str):
            raise _no_text(f"{param}.{number}.text", part.get("text"))
    return "\n".join(part["text"] for part in content)


def _no_text(param: str, value: Any) -> RequestError:
    return RequestError(
        f"{param!r} is {str(value)[:60]!r}: a text is needed, or a list of text parts; nothing else is read.",
        code="BAD_PARAMETER",
        param=param,
    )


def require_text(text: str, param: str) -> str:
    """A question as it may be asked. Raises `RequestError` EMPTY_QUESTION, CONTROL_CHARACTER."""
    if not text.strip():
        raise RequestError("the question is empty.", code="EMPTY_QUESTION", param=param)
    if found := _CONTROL.search(text):
        raise RequestError(
            f"the question has the control character U+{ord(found[0]):04X} at position {found.start()}.",
            code="CONTROL_CHARACTER",
            param=param,
            hint="of control characters only tab and line break may be in a text",
        )
    return text


def ignored_by(request: ChatRequest) -> list[str]:
    """The fields and messages that were taken and change nothing."""
    out = [name for name in IGNORED if getattr(request, name) is not None]
    earlier = len(request.messages) - 1
    return [*out, *(["messages.0"] if earlier == 1 else [f"messages.0-{earlier - 1}"] if earlier else [])]


def _named(kind: type[Strict], error: ValidationError) -> RequestError:
    """The first thing that is wrong, in a client's words."""
    first: Mapping[str, Any] = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"] if not _is_type_name(part))
    if first["type"] == "json_invalid":
        return RequestError(
            f"the body is no JSON: {first['msg'].removeprefix('Invalid JSON: ')}.", code="BODY_NOT_VALID"
        )
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        names = sorted(kind.model_fields) if len(first["loc"]) == 1 else []
        near = difflib.get_close_matches(name, names, n=1)
        return RequestError(
            f"there is no parameter {where[:200]!r}.",
            code="UNSUPPORTED_PARAMETER",
            known=() if near else names,
            hint=f"did you mean {near[0]!r}?" if near else "",
            param=where[:200],
        )
    if where.split(".")[0] in _REFUSED:
        return RequestError(
            f"{where.split('.')[0]!r} is not supported: {_REFUSED[where.split('.')[0]]}.",
            code="UNSUPPORTED_PARAMETER",
            param=where[:200],
        )
    told = f"{where[:200]!r}" if where else "the body"
    return RequestError(f"{told}: {first['msg']}.", code="BAD_PARAMETER", param=where[:200] or None)


_REFUSED = {
    "n": "a request is one run with one answer; ask again with another seed",
    "logprobs": "GET /v1/runs/ID?tokens=true has every token with its log-probability",
    "top_logprobs": "GET /v1/runs/ID?tokens=true has every token with its log-probability",
    "response_format": "an answer is plain text",
    "modalities": "an answer is plain text",
    "tools": "the planner chooses the workflow of a question itself",
    "functions": "the planner chooses the workflow of a question itself",
    "tool_choice": "the planner chooses the workflow of a question itself",
    "function_call": "the planner chooses the workflow of a question itself",
    "logit_bias": "actions are drawn from the model's own distribution",
    "frequency_penalty": "actions are drawn from the model's own distribution",
    "presence_penalty": "actions are drawn from the model's own distribution",
    "stop": "an answer ends where the role's form ends",
}


def _is_type_name(part: object) -> bool:
    """pydantic puts the branch of a union into the place of an error: `str`, `list[TextPart]`."""
    return isinstance(part, str) and part in ("str", "list[TextPart]", "list")
