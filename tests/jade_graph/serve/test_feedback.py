"""/v1/feedback takes events of one's own runs, and what it took before."""

from __future__ import annotations

import json

from jade_graph.feedback.keeping import FeedbackEvents

KEY, OTHER = "a-key-of-enough-letters", "another-key-of-enough"


def bearer(key):
    return {"authorization": f"Bearer {key}"}


async def test_events_of_a_run_are_taken_under_a_pseudonym_and_read_back(serving, store):
    async with serving() as client:
        asked = {"question": "who?", "wait": True, "model": "vanilla-rag"}
        run = (await client.post("/v1/runs", json=asked)).json()
        known = [d["id"] for d in run["documents"]]
        body = {"run_id": run["id"], "rating": 1, "clicked": [known[1]], "user": "ann@example.com"}
        answer = await client.post("/v1/feedback", json=body)
        assert (answer.status_code, answer.json()["events"]) == (201, len(known))
        exact = [{"document": known[0], "rank": 3, "cited": True, "dwell": 2.5}]
        body = {"run_id": "chatcmpl-" + run["id"], "events": exact, "user": "bob", "session": "tab 1"}
        assert (await client.post("/v1/feedback", json=body)).json()["events"] == 1
        plain = await client.post("/v1/feedback", json={"run_id": run["id"], "rating": -1})
        assert (plain.status_code, plain.json()["events"]) == (201, 0)
        for wrong, code in (
            ({"events": [{"document": "p77"}]}, "FEEDBACK_DOCUMENT"),
            ({"events": [{"document": known[0], "shown": False, "clicked": True}]}, "FEEDBACK_EVENT"),
            ({"events": [{"document": known[0], "rank": 0}]}, "BAD_PARAMETER"),
            ({"events": [{"document": known[0], "colour": 1}]}, "UNSUPPORTED_PARAMETER"),
            ({"user": "ann"}, "FEEDBACK_EMPTY"),
        ):
            answer = await client.post("/v1/feedback", json={"run_id": run["id"]} | wrong)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
        short = await client.post("/v1/feedback", json={"run_id": run["id"][:8], "rating": 1})
        assert (short.status_code, short.json()["error"]["code"]) == (404, "RUN_NOT_FOUND")
        shown = (await client.get(f"/v1/runs/{run['id']}")).text
    assert "example.com" not in shown
    told = json.loads(shown)["metadata"]["feedback"]
    assert (told["ratings"], told["clicked"], told["used"]) == (2, [known[1]], [known[0]])
    events = list(FeedbackEvents(store.engine))
    assert len(events) == len(known) + 1
    assert len({e.user for e in events}) == 2
    assert [(e.rank, e.cited, e.dwell) for e in events if e.cited] == [(3, True, 2.5)]


async def test_a_key_gives_events_of_its_own_runs_alone(serving, store):
    async with serving(keys=f"{KEY},{OTHER}") as client:
        asked = {"question": "who?", "wait": True, "model": "vanilla-rag"}
        run = (await client.post("/v1/runs", json=asked, headers=bearer(KEY))).json()
        body = {
            "run_id": run["id"],
            "events": [{"document": run["documents"][0]["id"], "clicked": True}],
            "user": "ann",
        }
        refused = await client.post("/v1/feedback", json=body, headers=bearer(OTHER))
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "RUN_NOT_FOUND")
        assert len(FeedbackEvents(store.engine)) == 0
        assert (await client.post("/v1/feedback", json=body, headers=bearer(KEY))).status_code == 201
    assert len(FeedbackEvents(store.engine)) == 1
