"""What a server's log says: a line a request with the run's id, and nothing of what was asked."""

from __future__ import annotations

import io
import json
import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jade_graph.cli import logs


@pytest.fixture
def logged() -> Iterator[Callable[[type[logging.Formatter]], io.StringIO]]:
    handlers, logger = list[logging.Handler](), logging.getLogger("jade_graph")
    before = logger.level

    def begin(kind: type[logging.Formatter]) -> io.StringIO:
        out = io.StringIO()
        handler = logging.StreamHandler(out)
        handler.setFormatter(kind())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        handlers.append(handler)
        return out

    yield begin
    for handler in handlers:
        logger.removeHandler(handler)
    logger.setLevel(before)


async def test_a_line_a_request_with_the_run_that_answered_it(serving: Any, chat: Any, logged: Any) -> None:
    text, objects = logged(logs.Text), logged(logs.Json)
    async with serving() as client:
        run = (await client.post("/v1/chat/completions", json=chat("a private question?"))).json()["id"]
        begun = (await client.post("/v1/runs", json={"question": "another?"})).json()["id"]
        await client.get("/v1/models")
        for path in ("/healthz", "/readyz", "/metrics"):
            await client.get(path)
        await client.get("/nothing")
    lines = [each for each in map(json.loads, objects.getvalue().splitlines()) if "status" in each]
    assert [(each["path"], each["status"], each["run"]) for each in lines] == [
        ("/v1/chat/completions", 200, run.removeprefix("chatcmpl-")),
        ("/v1/runs", 202, begun),
        ("/v1/models", 200, None),
        ("/nothing", 404, None),
    ]
    assert all(each["level"] == "info" and each["ms"] >= 0 and each["request"] for each in lines)
    assert "private" not in objects.getvalue() + text.getvalue()
    shown = re.compile(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO jade_graph\.serve: POST '/v1/chat/completions' 200 .*"
    )
    assert shown.fullmatch(text.getvalue().splitlines()[0])


def test_a_json_line_is_one_line_and_hides_what_it_must() -> None:
    try:
        raise ValueError("line\nline postgresql://me:secret@host/x")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "a\nb %s", ("http://u:pass@h",), sys.exc_info())
    record.fields = {"run": "r", "level": "not this"}
    line = logs.Json().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert (found["run"], found["level"], found["message"]) == ("r", "error", "a\nb http://u:***@h")
    assert "ValueError" in found["traceback"]
    assert "secret" not in line


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_server_as_it_is_started(start: Any, tmp_path: Path) -> None:
    """Standard error has the log and standard output the address; JSON by a variable."""
    served = start(tmp_path, quiet=False, env={"JADE_LOG__FORMAT": "json"})
    answered = httpx.post(f"{served.url}/chat/completions", json={"messages": [{"role": "user", "content": "who?"}]})
    assert answered.status_code == 200, answered.text
    assert served.stop(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in (tmp_path / "err.txt").read_text().splitlines() if line.startswith("{")]
    assert [each["run"] for each in lines if "run" in each] == [answered.json()["id"].removeprefix("chatcmpl-")]
