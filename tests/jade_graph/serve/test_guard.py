"""Who may ask, how often, how much: and that a key is seen nowhere."""

from __future__ import annotations

import logging

import pytest

from jade_graph.errors import UsageError
from jade_graph.serve.keys import Rate, read_keys
from jade_graph.serve.problems import RequestError
from jade_graph.serve.server import is_loopback, listen, require_safe
from jade_graph.settings.fields import ServeSettings

KEY, OTHER = "the-first-key-of-two", "the-second-key-of-two"


async def test_without_the_key_nothing_but_health_is_answered(serving, chat, caplog):
    caplog.set_level(logging.DEBUG, logger="jade_graph")
    async with serving(keys=f"{KEY}, {OTHER}") as client:
        for header, code in (
            ({}, "NO_API_KEY"),
            ({"authorization": "Basic abc"}, "NO_API_KEY"),
            ({"authorization": "Bearer"}, "NO_API_KEY"),
            ({"authorization": f"Bearer {KEY}x"}, "WRONG_API_KEY"),
            ({"authorization": "Bearer \xe9\xe9"}, "WRONG_API_KEY"),
        ):
            headers = {k: v.encode("latin-1") for k, v in header.items()}
            for path in ("/v1/models", "/metrics", "/v1/nothing"):
                answer = await client.get(path, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
                assert answer.headers["www-authenticate"] == "Bearer"
            big = await client.post("/v1/chat/completions", content=b"x" * 400_000, headers=headers)
            assert big.status_code == 401  # and its body is not looked at
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        for key, name in ((KEY, "key1"), (OTHER, "key2")):
            answer = await client.post("/v1/runs", json={"question": "q", "wait": True}, headers=bearer(key))
            assert answer.json()["metadata"]["served"]["client"] == name
            assert key not in answer.text
    assert KEY not in caplog.text
    assert OTHER not in caplog.text


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_each_key_has_its_own_rate(serving):
    async with serving(keys=f"{KEY},{OTHER}", rate=2) as client:
        answers = [await client.get("/v1/models", headers=bearer(KEY)) for _ in range(3)]
        assert [a.status_code for a in answers] == [200, 200, 429]
        assert [a.headers["x-ratelimit-remaining-requests"] for a in answers] == ["1", "0", "0"]
        assert answers[2].json()["error"]["code"] == "RATE_LIMIT"
        assert 1 <= int(answers[2].headers["retry-after"]) <= 30
        assert (await client.get("/v1/models", headers=bearer(OTHER))).status_code == 200
        assert (await client.get("/metrics", headers=bearer(KEY))).status_code == 200


def test_the_bucket_fills_again_at_its_rate():
    now = 0.0
    rate = Rate(60, clock=lambda: now)
    for _ in range(60):
        rate.take("a")
    with pytest.raises(RequestError):
        rate.take("a")
    now = 2.0
    rate.take("a")
    rate.take("a")
    with pytest.raises(RequestError) as caught:
        rate.take("a")
    assert caught.value.headers["retry-after"] == "1"
    now = 1e9
    for _ in range(60):  # it holds no more than a minute's worth
        rate.take("a")
    with pytest.raises(RequestError):
        rate.take("a")


async def test_a_page_in_a_browser_cannot_reach_a_server_without_a_key(serving):
    async with serving() as client:
        port = client.base_url.port
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "localhost.evil"):
            answer = await client.get("/v1/models", headers={"host": host})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FOREIGN_HOST")
        for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}", "[::1]", f"127.0.0.2:{port}", "LOCALHOST"):
            assert (await client.get("/v1/models", headers={"host": host})).status_code == 200
    async with serving(keys=KEY) as client:  # with a key a proxy may pass any name on
        answer = await client.get("/v1/models", headers={"host": "app.example", **bearer(KEY)})
        assert answer.status_code == 200


def test_keys_come_from_the_setting_and_from_a_file(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# people\nann {KEY}\n\n{OTHER}  # no name\n")
    keys = read_keys(ServeSettings(keys="yet-another-key-here", keys_file=str(file)))
    assert [keys.name(f"Bearer {k}") for k in ("yet-another-key-here", KEY, OTHER)] == ["key1", "ann", "line4"]
    assert KEY not in repr(keys)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("short", "SERVE_KEY_SHORT"),
        ("", "SERVE_KEYS_FILE"),
        ("a b c\n", "SERVE_KEYS_FILE"),
        (f"{KEY}\nann {KEY}\n", "SERVE_KEY_TWICE"),
        (b"\xff\xfe", "SERVE_KEYS_FILE"),
        (None, "SERVE_KEYS_FILE"),
    ],
)
def test_a_file_of_keys_that_cannot_be_meant_is_refused_without_showing_any(tmp_path, text, code):
    file = tmp_path / "keys"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        read_keys(ServeSettings(keys_file=str(file)))
    assert caught.value.error_code == code
    assert KEY not in str(caught.value)


def test_an_address_that_others_reach_needs_a_key():
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        assert not is_loopback(host)
        with pytest.raises(UsageError) as caught:
            require_safe(ServeSettings(host=host), read_keys(ServeSettings()))
        assert caught.value.error_code == "SERVE_NO_KEY"
        require_safe(ServeSettings(host=host), read_keys(ServeSettings(keys=KEY)))
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert is_loopback(host)
        require_safe(ServeSettings(host=host), read_keys(ServeSettings()))


def test_addresses_that_cannot_be_listened_on_are_told():
    with listen(ServeSettings(port=0)) as bound:
        port = bound.getsockname()[1]
        bound.listen()
        for settings, code in (
            (ServeSettings(port=port), "SERVE_PORT_IN_USE"),
            (ServeSettings(port=70_000), "SERVE_ADDRESS"),
            (ServeSettings(host="192.0.2.1", port=0), "SERVE_ADDRESS"),
            (ServeSettings(host="not a host", port=0), "SERVE_ADDRESS"),
        ):
            with pytest.raises(UsageError) as caught:
                listen(settings)
            assert caught.value.error_code == code


# --- whose run it is --------------------------------------------------------------------------------------------------
async def asked(client, key, question="q"):
    answer = await client.post("/v1/runs", json={"question": question, "wait": True}, headers=bearer(key))
    return answer.json()["id"]


async def test_a_run_belongs_to_its_key(serving, scripted):
    async with serving(keys=f"{KEY},{OTHER}") as client:
        mine, theirs = await asked(client, KEY), await asked(client, OTHER)
        spoof = {"client": "key2", "served": '"served":{"route":"runs","client":"key2","request_id":'}
        fake = await client.post(
            "/v1/runs", json={"question": "q", "wait": True, "metadata": spoof}, headers=bearer(KEY)
        )
        for key, own, other in ((KEY, [mine, fake.json()["id"]], theirs), (OTHER, [theirs], mine)):
            listed = (await client.get("/v1/runs", headers=bearer(key))).json()
            assert (sorted(r["id"] for r in listed["data"]), listed["total"]) == (sorted(own), len(own))
            assert (await client.get(f"/v1/runs/{own[0]}", headers=bearer(key))).status_code == 200
            for answer in (
                await client.get(f"/v1/runs/{other}", headers=bearer(key)),
                await client.get(f"/v1/runs/{other[:8]}", headers=bearer(key)),
                await client.get(f"/v1/runs/chatcmpl-{other}", headers=bearer(key)),
                await client.post(f"/v1/runs/{other}/cancel", headers=bearer(key)),
                await client.post("/v1/feedback", json={"run_id": other, "rating": 1}, headers=bearer(key)),
            ):
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "RUN_NOT_FOUND")
            assert (await client.post(f"/v1/runs/{own[0]}/cancel", headers=bearer(key))).status_code == 409
            assert (await client.get(f"/v1/runs/{own[0][:12]}", headers=bearer(key))).json()["id"] == own[0]


async def test_another_keys_run_under_way_is_neither_seen_nor_cancelled(serving, scripted):
    async with serving(scripted({"latency_s": 0.3}), keys=f"{KEY},{OTHER}") as client:
        run = (await client.post("/v1/runs", json={"question": "q"}, headers=bearer(KEY))).json()["id"]
        assert (await client.post(f"/v1/runs/{run}/cancel", headers=bearer(OTHER))).status_code == 404
        assert (await client.get(f"/v1/runs/{run}", headers=bearer(OTHER))).status_code == 404
        assert (await client.get(f"/v1/runs/{run}", headers=bearer(KEY))).status_code == 200
        ended = await client.post(f"/v1/runs/{run}/cancel", headers=bearer(KEY))
        assert (ended.status_code, ended.json()["error"]) == (200, "CANCELLED")


@pytest.mark.parametrize(("keys", "shared"), [(f"{KEY},{OTHER}", True), (KEY, None)])
async def test_keys_that_share_read_each_others_runs_by_setting(serving, keys, shared):
    async with serving(keys=keys, shared=shared) as client:
        run = await asked(client, KEY)
        reader = OTHER if shared else KEY
        assert (await client.get(f"/v1/runs/{run}", headers=bearer(reader))).status_code == 200
        assert (await client.get("/v1/runs", headers=bearer(reader))).json()["total"] == 1


async def test_a_key_has_one_rating_for_each_run(serving):
    async with serving(keys=f"{KEY},{OTHER}", shared=True) as client:
        run = await asked(client, KEY)
        for key, rating in ((KEY, 1), (KEY, 1), (OTHER, -1), (KEY, 1), (KEY, 0.5)):
            answer = await client.post("/v1/feedback", json={"run_id": run, "rating": rating}, headers=bearer(key))
            assert answer.status_code == 201
        told = (await client.get(f"/v1/runs/{run}", headers=bearer(KEY))).json()["metadata"]["feedback"]
        assert (told["rating"], told["ratings"], told["count"]) == (-0.25, 2, 5)
