"""The studio's parts without a browser: index, guard, learning curves, comparison, rooms."""

import contextlib
import json
import os
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from jade_graph import JadeGraph, RunStore
from jade_graph.errors import JadeError, UsageError
from jade_graph.registry.versions import ModelVersion, Promotion
from jade_graph.retrieval.corpus import build_corpus
from jade_graph.scoring.evaluation import Row
from jade_graph.scoring.keeping import save_rows
from jade_graph.settings import addresses
from jade_graph.settings.config import load_config
from jade_graph.studio import api, files, guard, learning, sides
from jade_graph.studio.comparison import compare, from_index
from jade_graph.studio.index import Filter, Index
from jade_graph.studio.learning_page import _options, _strip
from jade_graph.studio.registered import Known, Registered, models, moments
from jade_graph.studio.room import Job, Room
from jade_graph.types import Run
from tests.jade_graph.studio.conftest import PASSAGES, fill, scripted


# --- index ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    fill(folder)
    with RunStore(folder / ".jade" / "runs.db") as opened:
        yield opened


def test_the_index_holds_every_run_once_and_what_it_scores(store):
    index = Index(store.engine)
    assert index.sync() == 14
    assert index.sync() == 0
    rows = index.page(Filter(version="one", type="1hop"), sort="f1", limit=50)
    assert [r["f1"] for r in rows] == [1.0, 1.0, 1.0, 0.0][: len(rows)] or {r["f1"] for r in rows} <= {0.0, 1.0, None}
    found = index.summary(Filter(version="two"))
    assert (found.runs, found.scored, found.f1, found.failed) == (6, 6, 0.5, 0)
    assert found.plans == (("QDP", 6, 0.5),)
    assert found.scores == (3, 0, 3)
    assert {name: n for name, n, _ in found.types} == {"1hop": 3, "2hop": 3}


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ({}, 14), ({"status": "failed"}, 1), ({"plan": "QDP"}, 6), ({"score": "right"}, 6), ({"score": "unscored"}, 2),
        ({"text": "NUMBER 3"}, 2), ({"text": "failed"}, 1), ({"text": "100%_"}, 0), ({"calls": "4"}, 6),
        ({"illegal": "none"}, 13), ({"version": "one", "score": "wrong"}, 3), ({"type": "' OR 1=1 --"}, 0),
    ],
)  # fmt: skip
def test_filters_count_and_page_alike(store, where, count):
    index = Index(store.engine)
    index.sync()
    chosen = Filter(**where)
    assert index.count(chosen) == index.summary(chosen).runs == len(index.page(chosen, limit=100)), where
    if not where.get("illegal"):
        assert index.count(chosen) == count
    assert Filter.of(chosen.as_query() | {"unknown": "x"}) == chosen


def test_pages_follow_each_other_without_gaps(store):
    index = Index(store.engine)
    index.sync()
    for sort in ("started_at", "f1", "calls", "question"):
        for descending in (True, False):
            pages = [index.page(Filter(), sort=sort, descending=descending, limit=5, offset=o) for o in (0, 5, 10)]
            assert len({row["id"] for page in pages for row in page}) == 14
    assert index.page(Filter(), sort="f1", limit=14)[-1]["f1"] is None, "what is not scored stands last"


def test_a_run_that_ends_or_is_tried_again_is_copied_again(tmp_path):
    with RunStore(tmp_path / "runs.db") as store:
        index = Index(store.engine)
        run = Run("r", "q?", "", "jade", 0, metadata={"answers": ["a"], "parent": "p"})
        store.run_started(run)
        store.flush()
        assert index.sync() == 1
        assert index.page(Filter())[0]["f1"] is None
        assert index.forks("p") == ["r"]
        store.run_finished(replace(run, status="answered", answer="a"))
        store.flush()
        assert index.sync() == 1
        assert index.page(Filter())[0]["f1"] == 1.0
        store.run_finished(replace(run, status="answered", answer="b", attempt=1))
        store.flush()
        assert index.sync() == 1
        assert index.page(Filter())[0]["f1"] == 0.0


def test_an_index_of_an_older_studio_is_made_again(tmp_path):
    with RunStore(tmp_path / "runs.db") as store:
        with store.engine.begin() as db:
            db.exec_driver_sql("create table studio_runs (id text primary key, old text)")
        assert Index(store.engine).sync() == 0
        assert Index(store.engine).page(Filter()) == []


def test_a_store_that_cannot_be_written_is_shown_all_the_same(tmp_path):
    path = tmp_path / "runs.db"
    with RunStore(path) as store:
        run = Run("r", "q?", "", "jade", 0, metadata={"answers": ["a"]})
        store.run_started(run)
        store.flush()
        with RunStore(f"sqlite:///file:{path}?mode=ro&uri=true") as shut:
            index = Index(shut.engine)
            assert index.apart
            assert (index.sync(), index.sync()) == (1, 0)
            assert index.page(Filter())[0]["status"] == "running"
            store.run_finished(replace(run, status="answered", answer="a"))
            store.flush()
            assert index.sync() == 1
            assert index.summary(Filter()).scores == (1, 0, 0)
            index.close()
        assert not Index(store.engine).apart


# --- guard ------------------------------------------------------------------------------------------------------------
TOKEN = "0123456789abcdef0123"


def asked(*, token=None, local=True, path="/", query="", kind="http", **headers):
    """The status that a request gets, and the headers of the reply."""
    sent = []

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        else:
            await send({"type": "websocket.accept"})

    async def send(message):
        sent.append(message)

    named = {"host": "127.0.0.1:8420", **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": kind, "method": "GET", "path": path, "query_string": query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in named.items()],
    }  # fmt: skip
    coroutine = guard.Guard(app, token=token, local=local)(scope, None, send)
    with contextlib.suppress(StopIteration):
        coroutine.send(None)
    first = sent[0]
    status = first.get("status", {"websocket.accept": 101, "websocket.close": 403}.get(first["type"]))
    return status, {k.decode(): v.decode() for k, v in first.get("headers", [])}


def test_only_this_machine_is_answered_unless_told_otherwise():
    assert asked()[0] == asked(host="localhost:1")[0] == asked(host="[::1]:8420")[0] == 200
    assert asked(host="evil.example:8420")[0] == 421, "a name that somebody points at this machine"
    assert asked(host="")[0] == 421
    assert asked(origin="http://127.0.0.1:8420")[0] == 200
    assert asked(origin="http://evil.example")[0] == 403
    assert asked(kind="websocket", origin="http://evil.example")[0] == 403
    assert asked(kind="websocket", origin="http://127.0.0.1:8420")[0] == 101
    assert asked(origin="null")[0] == 403


def test_with_a_token_nothing_is_given_without_it():
    shut = {"token": TOKEN, "local": False, "host": "studio.example"}
    assert asked(**shut)[0] == asked(**shut, authorization="Bearer wrong")[0] == 401
    assert asked(**shut, kind="websocket")[0] == 403
    assert asked(**shut, authorization=f"Bearer {TOKEN}")[0] == 200
    assert asked(**shut, cookie=f"{guard.COOKIE}={TOKEN}")[0] == 200
    assert asked(**shut, kind="websocket", cookie=f"{guard.COOKIE}={TOKEN}")[0] == 101
    status, headers = asked(**shut, path="/run/x", query=f"token={TOKEN}&step=2")
    assert (status, headers["location"]) == (303, "/run/x?step=2"), "the token leaves the address"
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=Strict" in headers["set-cookie"]
    assert asked(**shut, path="//evil.example/", query=f"token={TOKEN}")[1]["location"] == "/"


def test_pages_may_ask_for_nothing_outside():
    policy = asked()[1]["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "http:" not in policy
    assert "*" not in policy


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "studio.example"])
def test_others_are_let_in_only_with_a_token(host):
    for token in (None, "", "short"):
        with pytest.raises(UsageError) as error:
            guard.require_token(host, token)
        assert error.value.error_code == "STUDIO_TOKEN"
    guard.require_token(host, TOKEN)
    for local in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        guard.require_token(local, None)


# --- learning ---------------------------------------------------------------------------------------------------------
def test_curves_come_from_what_is_written_and_survive_half_a_line(tmp_path):
    lines = [
        {"iteration": i, "reward": 0.1 * i, "reward/f1": 0.2, "reward/format": -0.1, "plan_entropy": 2.0 - i,
         "calls": 3.0, "retrievals": 1.0, "kl_old": 0.01, "clip_fraction": 0.1, "AG/advantage_mean": 0.1,
         "PL/advantage_mean": -0.1, "plans": {"AG": 3}}
        for i in range(3)
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"iteration": 3, "rew')
    state = {"facts": {"preset": "jade"}, "evaluations": {"0": {"f1": 0.2, "f1_by_kind": {"1hop": 0.4}}}}
    (tmp_path / "improve.json").write_text(json.dumps(state))
    found = learning.read(tmp_path)
    charts = {c.title: c.curves for c in found.charts}
    assert found.done == 3
    assert found.facts == {"preset": "jade"}
    assert set(charts["Reward by term"]) == {"all", "f1", "format"}
    assert charts["Plan entropy"]["plan entropy"] == ((0.0, 2.0), (1.0, 1.0), (2.0, 0.0))
    assert list(charts["F1 by question type"]) == ["all", "1hop"]
    assert set(charts["Advantage by role"]) == {"AG", "PL"}
    assert "Illegal actions by role" not in charts
    assert learning.read(tmp_path / "nothing").charts == ()
    assert learning.folders(tmp_path.parent)[0] == tmp_path


def test_illegal_actions_are_counted_by_role_and_iteration(tmp_path, passages):
    from jade_graph.runs import store_read

    with RunStore(tmp_path / "runs.sqlite") as store:
        graph = JadeGraph(scripted("R,DS,AG", DS="nonsense"), retriever=passages, recorder=store)
        run = graph.run("q?")
        store_read.begin_rollout(store.engine, "learned-004", {})
        store_read.add_runs(store.engine, "learned-004", [run.id])
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 4, "reward": 1.0}\n')
    curves = {c.title: c.curves for c in learning.read(tmp_path).charts}["Illegal actions by role"]
    assert curves["DS"] == ((4.0, 1.0),)
    assert curves["AG"] == ((4.0, 0.0),)
    assert "R" not in curves


def test_the_watchdog_speaks_once_where_it_would_have_stopped(tmp_path):
    rows = [{"iteration": i, "reward": 0.1, "kl_old": 0.01 if i < 2 else 2.0} for i in range(8)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert [(at, text.partition(":")[0]) for at, text in learning.read(tmp_path).events] == [(4, "KL")]


# --- comparison -------------------------------------------------------------------------------------------------------
def test_questions_asked_often_are_meant_and_paired():
    base = {
        "id": "r", "question": "q?", "type": "t", "plan": "AG", "answer": "x", "status": "answered", "error": "",
        "calls": 2, "retrievals": 0, "tokens": 10, "wall_ms": 5.0, "illegal": 0,
    }  # fmt: skip
    one, texts = from_index(
        [{**base, "question_id": "a", "f1": 1.0, "em": 1.0}, {**base, "question_id": "a", "f1": 0.0, "em": 0.0}]
    )
    assert (one["a"].f1, one["a"].em, texts) == (0.5, 0.5, {"a": "q?"})
    other, _ = from_index(
        [{**base, "question_id": "a", "f1": 1.0, "em": 1.0}, {**base, "question_id": "b", "f1": None, "em": None}]
    )
    found = compare(one, other, texts)
    assert found.left_out == 1
    assert [t.question_id for t in found.behaviour.turned_right] == ["a"]
    assert compare(one, {}, texts) is None
    assert isinstance(one["a"], Row)


def test_both_sides_are_averaged_over_the_same_questions():
    """A question that one side alone was scored on counts for neither, in the means as in their difference."""

    def side(scores):
        rows = [Row(str(i), "all", "", "R,AG", "", "answered", None, f1, f1, f1, None, None, 1, 1, 1, 1.0, 0.0, 0.0)
                for i, f1 in enumerate(scores)]  # fmt: skip
        return {row.question_id: row for row in rows}

    found = compare(side([1.0, 0.0, 1.0]), side([1.0, 1.0, None]), {})
    assert found is not None
    (f1,) = (figure for figure in found.behaviour.figures if figure.name == "f1")
    assert (f1.a, f1.b, f1.difference) == (0.5, 1.0, 0.5)


# --- versions ---------------------------------------------------------------------------------------------------------
def at(second):
    return datetime.fromtimestamp(1.8e9 + second, UTC)


VERSIONS = (
    ModelVersion("jade-backbone", 2, "jade-backbone@two", aliases=("champion",), created=at(25)),
    ModelVersion("jade-backbone", 1, "jade-backbone@one", created=at(-5), tags={"jade.source_weights": "one-folder"}),
)
HISTORY = (
    Promotion(2, "promote", at(34), "me", 1, 2, summary="F1 +0.05"),
    Promotion(1, "first", at(-4), "me", None, 1, reason="<b>the first</b>"),
)
KNOWN = Known(VERSIONS, HISTORY)


def test_versions_and_promotions_stand_at_the_iteration_in_which_they_happened():
    begun = ((0.0, 1.8e9), (1.0, 1.8e9 + 10), (2.0, 1.8e9 + 20))  # the last one counts as 10 s too
    found = moments(KNOWN, begun)
    assert [(m.version, m.what, m.at, m.where) for m in found] == [
        (2, "promote", None, "after its last iteration"),
        (2, "registered", 2.5, "iteration 2.5"),
        (1, "first", None, "before it began"),
        (1, "registered", None, "before it began"),
    ]
    assert "F1 +0.05" in found[0].text
    assert {m.at for m in moments(KNOWN)} == {None}
    assert moments(Known(), begun) == []
    chart = learning.Chart("Turns", "a run", {"calls": ((0.0, 1.0), (1.0, 2.0))})
    lines = _options(chart, [1], found[1:2])["series"][0]["markLine"]["data"]
    assert [line["xAxis"] for line in lines] == [1, 2.5]
    strip = {row["name"]: row["data"] for row in _strip(found, begun)["series"]}
    assert [p["value"][2] for p in strip["champion"]] == ["v1", "v2"]
    crowded = _strip([replace(m, when=1.8e9 + i / 100) for i, m in enumerate(found)], begun)["series"]
    assert [p["value"][2] for p in crowded[0]["data"]] == ["v2 → v1"]
    assert [p["value"][2] for p in crowded[1]["data"]] == ["v2, v1"]
    assert [p["value"][2] for p in strip["iteration"]] == ["0", "1", "2"]


def test_versions_are_found_by_number_alias_and_address():
    for name, number in (
        ("2", 2),
        ("champion", 2),
        ("models:/jade-backbone@champion", 2),
        ("models:/jade-backbone/1", 1),
    ):
        assert KNOWN.find(name).number == number, name
    for name in ("3", "challenger", "models:/other/1", "a b", "jade @ one", ""):
        assert KNOWN.find(name) is None, name


def test_models_to_choose_from_are_named_and_the_runs_own_is_said(tmp_path):
    settings = load_config(overrides=[f"data_dir={tmp_path}", "backbone=scripted:a:b"]).settings
    found = models(settings, KNOWN, "folder@one-folder")
    assert list(found)[:2] == ["scripted:a:b", "models:/jade-backbone@champion"]
    assert "the run's own" in found["models:/jade-backbone/1"]
    assert "the run's own" not in found["models:/jade-backbone/2"]
    assert "bundled" in found["tiny"]
    assert Registered(settings).read() == Known(), "no registry was made: nothing is asked, nothing is made"
    assert list(tmp_path.iterdir()) == []
    away = load_config(overrides=["registry.url=file:///x"]).settings
    assert "[REGISTRY_URI]" in Registered(away).read().trouble


class Reg:
    """A registry whose log compared version 1 and 2, or nothing."""

    def __init__(self, files=None):
        self.files = files

    def history(self):
        return [replace(p, evidence={"f1": 1}) for p in HISTORY] if self.files else []

    def evidence(self, promotion):
        return self.files if promotion.number == 2 else {}

    def get(self, reference):
        raise UsageError(f"{reference!r} is none", code="VERSION_UNKNOWN")


@pytest.fixture
def pages(store, tmp_path):
    """A studio's parts over the filled store, with a registry of two versions whose runs are in the store."""
    index = Index(store.engine)
    index.sync()
    named = tuple(replace(v, content=c, tags={}) for v, c in zip(VERSIONS, ("m@two", "m@one"), strict=True))
    with store.engine.begin() as db:  # runs are recorded as NAME@HASH
        for hashed in ("one", "two"):
            for table in ("runs", "studio_runs"):
                column = "backbone_version" if table == "runs" else "version"
                db.exec_driver_sql(f"update {table} set {column} = ? where {column} = ?", (f"x@{hashed}", hashed))
    registered = SimpleNamespace(read=lambda: Known(named, HISTORY), registry=Reg())
    yield SimpleNamespace(index=index, registered=registered, roots=(tmp_path,))
    with store.engine.begin() as db:
        for hashed in ("one", "two"):
            for table in ("runs", "studio_runs"):
                column = "backbone_version" if table == "runs" else "version"
                db.exec_driver_sql(f"update {table} set {column} = ? where {column} = ?", (hashed, f"x@{hashed}"))


def test_sides_are_methods_versions_and_files(pages, tmp_path):
    offered = sides.choices(pages)
    assert {"jade @ x@one", "jade @ x@two", "1", "2"} <= set(offered)
    assert "champion" in offered["2"]
    for a, b in (("jade @ x@one", "jade @ x@two"), ("1", "2"), ("1", "champion"), ("jade @ x@one", "2")):
        found, told = sides.compared(pages, a, b)
        assert found.behaviour.n == 6, (a, b)
        assert len(found.behaviour.turned_right) == len(found.behaviour.turned_wrong) == 3
        assert "run store" in told
        assert found.questions["q3"] == "Who is where, number 3?"
    whole, _ = sides.compared(pages, "jade", "1")
    assert whole.behaviour.n == 7, "a method takes the runs of all of its versions, and a failed one of version 1 too"
    with pytest.raises(UsageError, match="VERSION_UNKNOWN"):
        sides.compared(pages, "1", "9")
    with pytest.raises(JadeError, match="STUDIO_FILE"):
        sides.compared(pages, "1", missing := str(tmp_path / "no such file"), {missing})


def test_no_file_is_opened_because_an_address_names_it(pages, tmp_path):
    one, _ = from_index(pages.index.page(Filter(version="x@one")))
    saved = tmp_path / "a.jsonl"
    save_rows(saved, one.values(), {"dataset": "held out"})
    for text in (str(saved), "/dev/zero", str(tmp_path)):
        with pytest.raises(JadeError, match="STUDIO_UNNAMED"):
            sides.compared(pages, "jade @ x@one", text, {"something else"})
    found, _ = sides.compared(pages, "jade @ x@one", str(saved), {str(saved)})
    assert found.behaviour.n == len(one)


@pytest.mark.parametrize("kind", ["device", "pipe", "outside", "link", "large", "folder", "missing", "nul"])
def test_files_that_a_person_names_are_regular_inside_and_not_too_large(pages, tmp_path, kind, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    pages.roots = (inside,)
    outside = tmp_path / "outside.jsonl"
    outside.write_text("{}")
    named = inside / "x"
    if kind == "pipe":
        os.mkfifo(named)
    elif kind == "link":
        named.symlink_to(outside)
    elif kind == "large":
        with named.open("wb") as file:
            file.truncate(files.MOST_BYTES + 1)
    elif kind == "folder":
        named.mkdir()
    text = {"device": "/dev/zero", "outside": str(outside), "nul": "a\0b"}.get(kind, str(named))
    with pytest.raises(JadeError, match="STUDIO_FILE"):
        sides.compared(pages, "jade @ x@one", text, {text})


def test_a_learning_folder_of_pipes_and_links_to_devices_gives_no_curves(tmp_path):
    os.mkfifo(tmp_path / learning.METRICS)
    (tmp_path / learning.STATE).symlink_to("/dev/zero")
    (tmp_path / learning.STORE).symlink_to("/dev/zero")
    assert learning.read(tmp_path).charts == ()
    assert learning.folders(tmp_path) == []
    assert files.inside(tmp_path / "a", [tmp_path])
    assert not files.inside(tmp_path / "..", [tmp_path])


@pytest.mark.parametrize(
    ("headers", "path", "query", "status"),
    [
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}, "/compare", "", 403),
        ({"sec_fetch_site": "same-site", "sec_fetch_mode": "cors", "sec_fetch_dest": "empty"}, "/", "", 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}, "/", "", 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}, "/", "", 200),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}, "/ask", "", 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}, "/", "a=1", 403),
        ({"sec_fetch_site": "anything"}, "/", "", 403),
        ({"sec_fetch_site": "same-origin"}, "/compare", "a=1", 200),
        ({"sec_fetch_site": "none"}, "/compare", "a=1", 200),
        ({"referer": "http://evil.example/"}, "/compare", "", 403),
        ({"referer": "http://127.0.0.1:8420/"}, "/compare", "", 200),
    ],
)
def test_what_a_page_of_another_site_asks_for_is_refused(headers, path, query, status):
    assert asked(path=path, query=query, **headers)[0] == status


@pytest.mark.parametrize(
    ("host", "right"),
    [
        *((h, True) for h in ("127.0.0.2", "127.0.0.2:8420", "LOCALHOST:1", "[::1]", "[::1]:8420", "127.255.0.9")),
        *((h, False) for h in ("localhost:x", "127.0.0.1:80:80", "a@127.0.0.1", "127.0.0.1/x", "[::1]x", "[127.0.0.1",
                               "127.0.0.1:99999", "127.0.0.1,evil", "127.0.0.1 ", "::1", "localhost.", "127.1",
                               "evil?127.0.0.1", "127.0.0.1#", "0177.0.0.1", "localhost\t")),
    ],
)  # fmt: skip
def test_a_host_is_this_machines_own_or_nobodys(host, right):
    assert addresses.calls_loopback(host) is right
    assert asked(host=host)[0] == (200 if right else 421)


def test_two_versions_are_compared_by_the_answers_of_their_promotion(pages, tmp_path):
    one, _ = from_index(pages.index.page(Filter(version="x@one")))
    right = [Row(**{**asdict(row), "em": 1.0, "f1": 1.0}) for row in one.values()]
    save_rows(tmp_path / "a", one.values(), {"dataset": "held out"})
    save_rows(tmp_path / "b", right, {"dataset": "held out"})
    pages.registered.registry = Reg({"champion.jsonl": tmp_path / "a", "challenger.jsonl": tmp_path / "b"})
    found, told = sides.compared(pages, "1", "champion")
    assert told == "The answers are those of their promotion (held out)."
    assert (len(found.behaviour.turned_right), len(found.behaviour.turned_wrong)) == (3, 0)
    back, _ = sides.compared(pages, "2", "1")
    assert (len(back.behaviour.turned_right), len(back.behaviour.turned_wrong)) == (0, 3)


def test_a_version_that_has_answered_nothing_says_what_to_do(pages):
    known = Known((replace(VERSIONS[0], content="m@elsewhere", tags={}),))
    pages.registered.read = lambda: known
    with pytest.raises(JadeError) as error:
        sides.compared(pages, "jade @ x@one", "2")
    assert error.value.error_code == "VERSION_NO_RUNS"
    assert "models:/jade-backbone/2" in error.value.hint


# --- room -------------------------------------------------------------------------------------------------------------
def test_what_goes_wrong_before_a_run_begins_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    room = Room(lambda changes: load_config(overrides=["corpus=nowhere", "backbone=scripted:no_such_module", *changes]))
    with pytest.raises(JadeError) as error:
        room.ask("  ")
    assert error.value.error_code == "EMPTY_QUESTION"
    started = room.ask("q?")
    until = time.monotonic() + 30
    while not room.jobs[started].failed and time.monotonic() < until:
        time.sleep(0.01)
    assert "[UNKNOWN_CORPUS]" in room.jobs[started].note
    room.close()
    tiny = Room(lambda changes: load_config(overrides=list(changes)))
    with pytest.raises(UsageError) as refused:
        tiny.ask("Who wrote Hamlet in Copenhagen?")
    assert refused.value.error_code == "FOREIGN_QUESTION"
    assert not Path(".jade").exists()


def test_what_a_run_that_was_asked_says_is_kept_while_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("said_policy.py").write_text(
        "def policy(ask):\n    return '<workflow>AG</workflow>' if ask.role == 'PL' else 'By <answer>Ann Lee'\n"
    )
    build_corpus(PASSAGES, "doors", tmp_path / ".jade", "hash")
    room = Room(
        lambda changes: load_config(
            overrides=["corpus=doors", "encoder=hash", "backbone=scripted:said_policy", *changes]
        )
    )
    heard = []
    monkeypatch.setattr(Job, "hear", lambda job, event, own=Job.hear: (own(job, event), heard.append(job.said)))
    started = room.ask("who?")
    room.close()
    job = room.jobs[started]
    assert not job.failed, job.note
    assert (job.over, job.failed, job.said) == (True, False, "By Ann Lee")
    said = [text for n, text in enumerate(heard) if n == 0 or text != heard[n - 1]]
    assert "Ann Lee" in said  # what was shown, and then taken back
    assert said.index("Ann Lee") < said.index("", said.index("Ann Lee")) < said.index("By Ann Lee")


async def test_what_a_run_says_is_streamed_whenever_it_changes_until_it_is_over():
    job = Job("x")
    stream = api._said(job)
    for said in ("Ann", "Ann\u2028Lee", "", "Bo"):
        job.said = said
        data = await anext(stream)
        assert data.startswith(b"data: ")
        assert data.endswith(b"\n\n")
        assert data.isascii()
        assert json.loads(data[6:]) == said
    job.over = True
    assert [data async for data in stream] == []


def test_a_run_that_is_not_under_way_here_has_nothing_to_say():
    app, over = FastAPI(), Job("over", over=True)
    api.add(app, SimpleNamespace(room=SimpleNamespace(jobs={"over": over})))
    client = TestClient(app)
    assert [client.get(f"/api/runs/{name}/answer").status_code for name in ("over", "elsewhere")] == [204, 204]
