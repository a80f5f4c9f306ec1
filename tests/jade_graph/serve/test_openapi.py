"""The OpenAPI document: it is valid, it says what is read, and a fuzzer that follows it finds no 5xx."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Beside the environment of the tests, because of other pins: `make test-all` installs it.
SCHEMATHESIS = Path(f"{sys.prefix}-schemathesis") / "bin" / "schemathesis"
# `positive_data_acceptance` is left out: no JSON schema can say that the last message must be the user's, or that a
# question must hold more than white space, and a request that breaks these rules is refused with 400.
LEFT_OUT = "positive_data_acceptance"


async def test_the_document_names_every_route_and_the_models_that_read_the_bodies(serving):
    async with serving() as client:
        found = (await client.get("/openapi.json")).json()
        assert found["openapi"].startswith("3.1")
        assert set(found["paths"]) == {
            "/v1/chat/completions", "/v1/models", "/v1/models/{model}", "/v1/runs", "/v1/runs/{run_id}",
            "/v1/runs/{run_id}/cancel", "/v1/feedback", "/healthz", "/readyz", "/metrics",
        }  # fmt: skip
        schemas = found["components"]["schemas"]
        assert schemas["ChatRequest"]["additionalProperties"] is False
        assert schemas["ChatRequest"]["properties"]["messages"]["minItems"] == 1
        refs = set(_refs(found))
        assert refs
        assert refs <= {f"#/components/schemas/{name}" for name in schemas}
        assert "security" not in json.dumps(found)
    async with serving(keys="a-key-of-enough-letters") as client:
        keyed = (await client.get("/openapi.json")).json()
        assert keyed["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
        assert keyed["paths"]["/healthz"]["get"]["security"] == []


def _refs(value):
    if isinstance(value, dict):
        yield from (v for k, v in value.items() if k == "$ref")
        for item in value.values():
            yield from _refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from _refs(item)


@pytest.mark.slow
@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed: make test-all does it")
def test_schemathesis_finds_no_5xx_and_no_answer_that_the_document_does_not_name(process, tmp_path):
    command = [str(SCHEMATHESIS), "run", process.url.replace("/v1", "/openapi.json"), "--seed", "1", "--no-color"]
    command += ["--checks", "all", "--exclude-checks", LEFT_OUT, "--max-examples", "50"]
    command += ["--header", f"Authorization: Bearer {process.key}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Tested: 11" in done.stdout, done.stdout[-2000:]
    assert process.process.poll() is None
