"""Pictures: where everything stands, and that hostile text stays text."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph import JadeGraph
from jade_graph.picture import lay_out, mermaid, page, tree_svg
from jade_graph.picture.details import details, marked
from jade_graph.picture.facts import spans
from jade_graph.picture.gantt import gantt_svg
from jade_graph.picture.spelling import pieces, spelled_by
from jade_graph.picture.text import clean, shortened, width, wrapped
from jade_graph.picture.topology import topology_svg
from jade_graph.picture.view import credited, view
from jade_graph.types import Status, TraceNode

HOSTILE = (
    "<script>window.pwned=1</script>",
    "</script><img src=x onerror=window.pwned=1>",
    '"]; click n0 "javascript:window.pwned=1"; x["',
    "]]><svg/onload=window.pwned=1>",
    "{{constructor.constructor('window.pwned=1')()}}",
    "<!-- \x00 \x1b[31m \u202e reversed &lt;b&gt; \ud800",
    "javascript:alert(1)",
    "]({url}) ![x](http://evil.example/x.png)",
)


@pytest.fixture
def runs(scripted, passages):
    def plan(text):
        return lambda ask: f"<workflow>{text if ask.view.level == 'root' else 'QR,R,DS,AG'}</workflow>"

    def made(text, **actions):
        graph = JadeGraph(scripted(PL=plan(text), **actions), retriever=passages)
        return graph.run("Who came first, X or Y?", metadata={"answers": ["1950"], "type": "comparison"})

    return made


def overlap(a, b):
    return a.x < b.x + b.w and b.x < a.x + a.w and a.y < b.y + b.h and b.y < a.y + a.h


@pytest.mark.parametrize("plan", ["AG", "R,AG", "QR,R,DS,AG", "QDS", "QDP"])
def test_no_boxes_overlap_and_every_edge_joins_two(runs, plan):
    picture = lay_out(runs(plan))
    boxes = {b.key: b for b in picture.boxes}
    assert len(boxes) == len(picture.boxes)
    for i, a in enumerate(picture.boxes):
        assert min(a.x, a.y) >= 0
        assert a.x + a.w <= picture.width
        assert a.y + a.h <= picture.height
        assert not any(overlap(a, b) for b in picture.boxes[i + 1 :]), a
    for edge in picture.edges:
        source, target = boxes[edge.source], boxes[edge.target]
        assert edge.points[0] == (source.middle, source.y + source.h)
        assert edge.points[-1] == (target.middle, target.y)
        for (x, y), (to_x, to_y) in zip(edge.points, edge.points[1:], strict=False):
            assert x == to_x or y == to_y
            low, high = sorted((y, to_y))
            inside = [b for b in picture.boxes if b.x < x < b.x + b.w and low < b.y + b.h and b.y < high and x == to_x]
            assert not inside, "an edge runs through a box"
    assert set(boxes) - {e.target for e in picture.edges} == {"q0"}, "only the question has nothing before it"


def test_parallel_parts_stand_side_by_side_and_serial_ones_below_each_other(runs):
    side = {b.key: b for b in lay_out(runs("QDP")).boxes}
    assert side["q0.1"].y == side["q0.2"].y
    assert side["q0.1"].x + side["q0.1"].w < side["q0.2"].x
    below = {b.key: b for b in lay_out(runs("QDS")).boxes}
    assert below["q0.1"].x == below["q0.2"].x
    assert below["o0.1"].y < below["q0.2"].y


def test_families_and_states_are_told(runs):
    run = runs("R,DS,AG", DS="nonsense")
    boxes = {b.code or b.key: b for b in lay_out(run).boxes}
    assert (boxes["PL"].family, boxes["R"].family, boxes["AG"].family) == ("planner", "tool", "executor")
    assert (boxes["DS"].state, boxes["AG"].state) == ("fallback", "done")
    assert "NO_TAG → fallback" in [text for text, _ in boxes["DS"].lines]
    limit = replace(run, status="failed", answer="", error="LIMIT_TOKENS", error_message="no tokens are left for AG")
    limit.trace = (replace(run.trace[0], status=Status.FAILED, answer="", error="LIMIT_TOKENS"),)
    end = next(b for b in lay_out(limit).boxes if b.key == "o0")
    assert end.state == "failed"
    assert "LIMIT_TOKENS" in end.lines[1][0]
    assert any("no tokens are left" in text for text, _ in end.lines)


def test_a_run_under_way_shows_what_its_plan_still_holds(runs):
    run = runs("QR,R,DS,AG")
    half = replace(run, status="running", answer="", wall_ms=0.0, transitions=run.transitions[:3])
    half.trace = (replace(run.trace[0], status=Status.RUNNING, answer=""),)
    boxes = lay_out(half).boxes
    assert [(b.code, b.state) for b in boxes[4:]] == [("DS", "running"), ("AG", "pending")]
    empty = replace(half, transitions=(), trace=())
    assert [b.key for b in lay_out(empty).boxes] == ["q0"]


def test_steps_count_actions_as_they_end_and_overlapping_ones_run_together(runs):
    run = runs("QDP")
    times = {t.seq: (10.0 * t.seq, 5.0) for t in run.transitions}
    times[2], times[3] = (20.0, 15.0), (20.0, 25.0)  # the planners of both parts, at once
    timed = tuple(replace(t, started_ms=times[t.seq][0], latency_ms=times[t.seq][1]) for t in run.transitions[:4])
    found = spans(replace(run, transitions=timed))
    assert [found[i] for i in range(4)] == [(0, 1), (1, 2), (2, 3), (2, 4)]


@given(st.text(max_size=80), st.integers(40, 300), st.integers(1, 4))
def test_wrapped_text_is_never_wider_than_its_room(text, room, lines):
    found = wrapped(text, room, 12, lines)
    assert len(found) <= lines
    for line in found:
        assert width(line, 12) <= room or len(line) <= 2  # one wide character has nowhere to go
    kept = "".join("".join(found).split())
    whole = "".join(clean(text).split())
    assert kept == whole or kept.rstrip("…") == whole[: len(kept.rstrip("…"))]
    assert width(shortened(text, room, 12), 12) <= room


def hostile(run, text):
    trace = tuple(replace(n, question=text, answer=text, error=None) for n in run.trace)
    rows = tuple(
        replace(
            t,
            action_text=text,
            parsed={"queries": [text], "documents": [{"id": text, "title": text, "text": text, "score": 1.0}]}
            if t.role == "R"
            else text,
            violation=text if t.role == "AG" else None,
            prompt_messages=tuple(replace(m, content=text) for m in t.prompt_messages),
        )
        for t in run.transitions
    )
    about = {"answers": [text], "type": text}
    return replace(
        run,
        question=text,
        answer=text,
        preset=text,
        backbone_version=text,
        trace=trace,
        transitions=rows,
        metadata=about,
    )


STATEMENT = (
    r'flowchart TD| *n\d+(\[""\]|\{\{""\}\}|\(""\)|\[\[""\]\]|\(\[""\]\))| *subgraph g\w+ \[""\]| *end'
    r"|  n\d+ --> n\d+|  class n\d+ \w+|  classDef [\w ,:#-]+"
)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.scripts, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script":
            self.scripts.append(data)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text_in_every_picture(runs, text):
    run = hostile(runs("QDP"), text)
    for svg in (tree_svg(lay_out(run)), gantt_svg(run), topology_svg(run)):
        root = ElementTree.fromstring(svg)
        tags = {e.tag.rpartition("}")[2] for e in root.iter()}
        assert tags <= {"svg", "style", "rect", "g", "path", "text", "title", "circle", "defs", "pattern"}
        assert not any(name.lower().startswith("on") or "href" in name for e in root.iter() for name in e.attrib)
    parsed = Tags()
    parsed.feed(page(run))
    assert parsed.tags.count("script") == 2
    assert "img" not in parsed.tags
    assert not any(name.startswith("on") for name in parsed.attributes)
    for line in mermaid(run).splitlines():
        assert re.fullmatch(STATEMENT, re.sub('"[^"]*"', '""', line)), "a label that was ended early"
        assert not re.search("<(?!br/>)", line)


def test_a_page_asks_for_nothing_and_runs_only_its_own_script(runs):
    text = page(runs("QDP"))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert not re.search(r'(src|href)="', text)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    data = json.loads(re.search(r'id="jade-data">(.*?)</script>', text)[1])
    assert set(data["details"]) == {b.key for b in lay_out(runs("QDP")).boxes}


def test_mermaid_has_every_box_and_edge_and_its_groups(runs):
    run = runs("QDP")
    picture, text = lay_out(run), mermaid(run)
    assert text.startswith("flowchart TD\n")
    assert text.count(" --> ") == len(picture.edges)
    assert len(re.findall(r"^ +n\d+[\[({]", text, re.M)) == len(picture.boxes)
    assert text.count("subgraph") == text.count("end\n") == 1
    assert "2 in parallel" in text


def test_details_name_what_went_in_and_out(runs):
    run = credited(runs("R,DS,AG"))
    by_role = {t.role: details(run, f"a{t.seq}") for t in run.transitions}
    documents = next(s for s in by_role["DS"]["sections"] if s["kind"] == "documents")["documents"]
    assert [d["selected"] for d in documents] == [True, False, False, False, False]
    answer = by_role["AG"]
    assert answer["action"] == "<answer>Ann Lee</answer>"
    kinds = {s["title"]: s for s in answer["sections"]}
    assert len(kinds["What it wrote"]["tokens"]) == len(run.transitions[-1].action_token_ids)
    assert ["format", "+0.000"] in kinds["Rewards"]["rows"] or kinds["Rewards"]["rows"]
    assert {"advantage", "prompt", "version"} <= {name for name, _ in answer["facts"]}
    assert details(run, "a99") == details(run, "zz") == {}
    assert details(run, "q0")["badges"] == [["wrong", "bad"]]


def test_answer_strings_are_marked_as_whole_words():
    assert marked("Ann Lee met Ann Leeson; ann lee left", ["Ann Lee"]) == [
        ["Ann Lee", True],
        [" met Ann Leeson; ", False],
        ["ann lee", True],
        [" left", False],
    ]
    assert marked("text", []) == [["text", False]]


def test_tokens_are_spelled_only_by_a_tokenizer_that_fits(runs, scripted):
    run, backbone = runs("AG"), scripted()
    t = run.transitions[-1]
    assert "".join(pieces(backbone.decode, t.action_token_ids)) == t.action_text
    assert spelled_by(backbone.decode, run) is not None
    assert spelled_by(lambda ids: "other " * len(ids), run) is None
    assert spelled_by(backbone.decode, replace(run, transitions=())) is None


def test_a_view_of_what_no_preset_knows_is_drawn_all_the_same(runs):
    run = replace(runs("R,AG"), preset="someone-elses", trace=(TraceNode("0", "q", status=Status.SOLVED, answer="a"),))
    shown = view(run)
    assert shown["steps"] == len(run.transitions)
    assert "R" in shown["topology"]
