"""The OpenAPI document: routes as FastAPI describes them, bodies as `requests` reads them.

Invariant: the document says what the server does: the models that it names are those that read the bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from jade_graph.serve.requests import BODIES, ChatRequest, FeedbackRequest, RunRequest, Strict
from jade_graph.serve.schemas import Problem

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "Refused, or the run ended without an answer."},
    "5XX": {"model": Problem, "description": "Something does not work, here or behind the backbone."},
}
_BODY_OF: Mapping[str, type[Strict]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/runs": RunRequest,
    "/v1/feedback": FeedbackRequest,
}
_OPEN = ("/healthz", "/readyz")


def document(app: FastAPI, *, keys: bool) -> dict[str, Any]:
    """The document of an app; with `keys`, that it asks for one."""
    out = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, models = models_json_schema([(m, "validation") for m in BODIES], ref_template="#/components/schemas/{model}")
    parts: dict[str, Any] = out.setdefault("components", {})
    parts.setdefault("schemas", {}).update(models["$defs"])
    for path, model in _BODY_OF.items():
        schema = {"$ref": f"#/components/schemas/{model.__name__}"}
        out["paths"][path]["post"]["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    for operations in out["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)  # FastAPI's own shape of errors, which is not used
    for name in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(name, None)
    if keys:
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in out["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in _OPEN else [{"key": []}]
    return out
