"""Errors as HTTP answers, in OpenAI's error shape with this project's codes.

Invariant: whatever goes wrong has a status, a stable code and a message; a traceback, a key or a path of the server is
never in it. `x-should-retry: false` tells OpenAI's clients where trying again cannot help.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from jade_graph.errors import BackboneError, JadeError, RetrievalError, StoreError, UsageError
from jade_graph.types import Run

logger = logging.getLogger("jade_graph.serve")

_STATUS: Mapping[str, int] = {
    "NO_API_KEY": 401,
    "WRONG_API_KEY": 401,
    "FOREIGN_HOST": 403,
    "NO_SUCH_PATH": 404,
    "UNKNOWN_MODEL": 404,
    "RUN_NOT_FOUND": 404,
    "WRONG_METHOD": 405,
    "BODY_TIMEOUT": 408,
    "RUN_AMBIGUOUS": 400,
    "RUN_ENDED": 409,
    "BODY_TOO_LARGE": 413,
    "BODY_NOT_JSON": 415,
    "SERVER_BUSY": 429,
    "RATE_LIMIT": 429,
    "CANCELLED": 499,
    "SERVER_STOPPING": 503,
    "NO_RUN_STORE": 404,
    "FEEDBACK_EVENT": 400,
    "FEEDBACK_FULL": 507,
    # of runs
    "CONTEXT_OVERFLOW": 400,
    "LIMIT_TOKENS": 422,
    "LIMIT_ROUNDS": 422,
    "LIMIT_STEPS": 422,
    "LIMIT_RETRIEVALS": 422,
    "LIMIT_DEADLINE": 504,
}
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class RequestError(UsageError):
    """Something about a request is wrong.

    Args:
        param: the field of the request that is wrong.
        headers: more headers for the answer.
    """

    code = "BAD_REQUEST"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        known: Iterable[str] = (),
        hint: str = "",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code, known=known, hint=hint)
        self.param = param
        self.headers = dict(headers or {})


class RunFailed(JadeError):  # noqa: N818 - it is a run that failed, not an error of the server
    """A run ended without an answer; the code is the run's own error.

    Args:
        own_deadline: the deadline that passed was the client's, not the server's: no fault of ours.
    """

    def __init__(self, run: Run, *, own_deadline: bool = False) -> None:
        # The run's message begins with its code where it came from a typed error.
        message = (run.error_message or f"the run ended with {run.error}.").removeprefix(f"[{run.error}] ")
        super().__init__(message, code=run.error or "INTERNAL")
        self.run = run
        self.own_deadline = own_deadline


def status_of(error: BaseException) -> int:
    """The HTTP status of an error."""
    if not isinstance(error, JadeError):
        return 500
    if isinstance(error, RunFailed) and error.own_deadline and error.error_code == "LIMIT_DEADLINE":
        return 422
    if (known := _STATUS.get(error.error_code)) is not None:
        return known
    if isinstance(error, RunFailed):
        return 500 if error.error_code in ("INTERNAL", "ROLE_ERROR", "TOOL_ERROR") else 502
    if isinstance(error, UsageError):
        return 400
    return 503 if isinstance(error, StoreError | BackboneError | RetrievalError) else 500


def body_of(error: BaseException, status: int) -> dict[str, Any]:
    """The error's JSON: what OpenAI's clients read (message, type, param, code), and what else ours say."""
    if not isinstance(error, JadeError):
        error = JadeError("something happened that no typed error describes; the server's log has it.", code="INTERNAL")
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    told: dict[str, Any] = {
        "message": error.message,
        "type": kind,
        "param": getattr(error, "param", None),
        "code": error.error_code,
    }
    if error.known:
        told["known"] = list(error.known)
    if error.hint:
        told["hint"] = error.hint
    if isinstance(error, RunFailed):
        told["run_id"] = error.run.id
    return {"error": told}


def headers_of(error: BaseException, status: int) -> dict[str, str]:
    out = dict(getattr(error, "headers", {}))
    if status >= 500 and isinstance(error, RunFailed):
        out["x-should-retry"] = "false"  # the run was made and is recorded: the same again would end the same way
    if status == 401:
        out["www-authenticate"] = "Bearer"
    return out
