"""The studio in a real headless Chromium: what a person does, and what the browser asked for meanwhile."""

import contextlib

from jade_graph import RunStore
from jade_graph.feedback.keeping import FeedbackEvents

READY = "document.querySelector('#jade-run') && document.querySelector('#jade-run').dataset.ready === '1'"
DETAIL = "document.querySelector('.jv-side').innerText"
TOLD = "document.querySelector('.jv-told').innerText"


def box(key):
    return f'#jade-run [data-key="{key}"]'


def states(browser):
    return browser.run(
        "Object.fromEntries([...document.querySelectorAll('#jade-run .jg-tree .jg-box')].map((b) => "
        "[b.dataset.key, [...b.classList].find((c) => c.startsWith('jg-is-')).slice(6)]))"
    )


def choose(browser, selector, text):
    found = f"[...document.querySelectorAll('.q-menu .q-item')].find((i) => i.innerText.trim() === '{text}')"
    browser.click(selector)
    browser.wait(f"!!{found}")
    browser.run(f"{found}.click()")
    browser.wait(f"document.querySelector('{selector}').innerText.includes('{text}')")
    browser.wait("!document.querySelector('.q-menu')")  # while it closes it takes the next click for itself


def opened(browser, button, menu):
    """A click that falls while another menu goes away is lost: then, as a person would, once more."""
    for _ in range(4):
        browser.click(button)
        with contextlib.suppress(TimeoutError):
            browser.wait(f"!!document.querySelector('{menu}')", seconds=20)
            return
    raise AssertionError(f"{menu} did not open")


def test_a_question_is_asked_watched_stepped_through_and_forked(studio, browser):
    browser.open(f"{studio}/ask")
    browser.click(".st-form textarea")
    browser.type("Which parts are there?")
    browser.wait("document.querySelector('.st-form textarea').value.length > 10")
    browser.click(".st-ask")
    browser.wait("location.pathname.startsWith('/run/')")
    # It unfolds: boxes are there before the run has ended, and something is at work.
    browser.wait("document.querySelectorAll('#jade-run .jg-tree .jg-is-running').length > 0")
    before = browser.run("jadeRun.view.steps")
    browser.wait("jadeRun.view.status === 'answered'")
    assert browser.run("jadeRun.view.steps") > before
    assert set(states(browser).values()) == {"done"}
    rect = "document.querySelector('[data-key=\"{}\"]').getBoundingClientRect().toJSON()"
    left, right = (browser.run(rect.format(key)) for key in ("q0.1", "q0.2"))
    assert left["y"] == right["y"], "parallel parts stand side by side"
    assert left["right"] < right["x"]

    # A node.
    answer = browser.run("jadeRun.view.order.find((o) => o[1].startsWith('DS'))[0]")
    browser.click(box(answer))
    browser.wait(f"{DETAIL}.includes('Select documents')")
    for text in ("Document0", "selected", "What it saw", "log-probability", "scripted:studio_policy"):
        assert text in browser.run(DETAIL), text
    assert browser.run("document.querySelectorAll('.jv-selected').length") == 1
    assert browser.run("document.querySelectorAll('.jv-token').length") > 3

    # Back and on, by keyboard.
    steps = browser.run("jadeRun.view.steps")
    browser.press("ArrowLeft")
    browser.wait(f"{TOLD}.startsWith('{steps - 1} of')")
    assert states(browser)["o0"] == "pending"
    browser.press("ArrowLeft")
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    browser.wait(f"{TOLD}.startsWith('{steps} of')")
    assert states(browser)["o0"] == "done"
    browser.press("ArrowLeft")
    browser.press(" ")
    browser.wait(f"{TOLD}.startsWith('{steps} of')")
    for _ in range(steps):
        browser.press("ArrowLeft")
    browser.wait(f"{TOLD}.startsWith('0 of')")
    assert browser.run("new URLSearchParams(location.search).get('step')") == "0"

    # Fork, with another plan.
    browser.click(box("a0"))
    browser.wait(f"{DETAIL}.includes('Planner')")
    browser.click(".jv-actions button")
    choose(browser, ".st-dialog .q-select", "R,AG")
    opened(browser, ".st-dialog .st-model button", ".st-models")
    browser.wait("document.querySelector('.st-models')?.innerText.includes('tiny · bundled')")
    browser.press("Escape")
    browser.wait("!document.querySelector('.st-models')")
    assert browser.run("document.querySelector('.st-dialog .st-model input').value").startswith("scripted:")
    browser.click(".st-dialog .jv-primary")
    browser.wait("location.pathname === '/pair'")
    browser.wait("document.getElementById('jade-difference')?.dataset.ended === '1'")
    told = browser.run("document.getElementById('jade-difference').innerText")
    assert "First difference: PL at the question" in told
    assert "QDP" in told
    assert "R,AG" in told
    assert browser.run("document.querySelectorAll('#jade-one .jg-differs, #jade-other .jg-differs').length") == 2
    browser.wait("document.querySelector('#jade-other .jv-side').innerText.includes('edited')")


def test_the_table_filters_sorts_and_keeps_its_state_in_the_address(studio, seeded, browser):
    browser.open(f"{studio}/")
    browser.wait("document.querySelectorAll('.st-table tbody tr').length >= 10")
    browser.click(".st-search input")
    browser.type("number 3")
    browser.wait("document.querySelectorAll('.st-table tbody tr').length === 2")
    browser.wait("location.search.includes('text=number+3')")
    browser.open(f"{studio}/?version=two&sort=f1&order=asc")
    browser.wait("document.querySelectorAll('.st-table tbody tr').length === 6")
    scores = browser.run("[...document.querySelectorAll('.st-table td.st-col-f1')].map((c) => c.innerText.trim())")
    assert scores == sorted(scores)
    assert set(scores) == {"0.00", "1.00"}
    aside = browser.run("document.querySelector('.st-aside').innerText")
    assert "QDP" in aside
    assert "100 %" in aside
    assert "0.50" in aside
    browser.click(".st-part-right")
    browser.wait("document.querySelectorAll('.st-table tbody tr').length === 3")
    browser.wait("location.search.includes('score=right')")
    browser.open(f"{studio}/?text=nothing+like+it")
    browser.wait("document.body.innerText.includes('No run matches')")


def test_a_failed_run_says_why_at_first_sight(studio, seeded, browser):
    browser.open(f"{studio}/run/{seeded.ids['failed']}")
    browser.wait(READY)
    browser.wait(f"{DETAIL}.includes('LIMIT_TOKENS')")
    assert "Why it failed" in browser.run(DETAIL)
    assert "What to try" in browser.run(DETAIL)
    said = browser.run("document.querySelector('.jv-why').innerText")
    assert "no tokens are left" in said
    assert "limits.tokens=" in said
    assert "failed" in states(browser).values()
    assert browser.run("document.querySelectorAll('#jade-run .jg-is-failed .jg-mark').length") >= 1


def test_a_thumb_and_the_passage_that_helped_are_kept(studio, seeded, browser):
    run, yes, no = seeded.ids["two-q2"], '[aria-label="Yes, this answer helped"]', '[aria-label^="No,"]'
    pressed = "[...document.querySelectorAll('.st-feedback [aria-pressed=true]')].map((b) => b.ariaLabel)"
    browser.open(f"{studio}/run/{run}")
    browser.click(yes)
    browser.wait(f"document.querySelector('{yes}').ariaPressed === 'true'")
    browser.click(no)
    browser.wait(f"document.querySelector('{yes}').ariaPressed === 'false'")
    browser.click(".st-passages summary")
    browser.click('[aria-label="Passage 1 helped: Left"]')
    browser.wait(f"{pressed}.length === 2")
    assert "Kept." in browser.run("document.querySelector('.st-feedback [role=status]').innerText")
    with RunStore(seeded.folder / ".jade" / "runs.db") as store:
        told = store.get(run).metadata["feedback"]
        events = list(FeedbackEvents(store.engine).read(run_id=run))
    assert (told["rating"], told["ratings"], told["used"]) == (-1.0, 1, ["p0"])
    first = events[0]
    assert (first.rank, first.document, first.clicked, first.cited) == (1, "p0", True, True)
    assert sum(e.clicked for e in events) == 1 < len(events)
    browser.open(f"{studio}/run/{run}")  # what was said is shown again
    browser.wait(f"{pressed}.length === 2")
    assert browser.run(pressed) == ["No, this answer did not help", "Passage 1 helped: Left"]


def test_hostile_text_is_shown_and_never_runs(studio, seeded, browser):
    for where in (
        f"/run/{seeded.ids['hostile']}",
        "/?text=pwned",
        "/corpus?q=right+door",
        "/ask",
        "/compare?a=jade+%40+one&b=jade+%40+two",
    ):
        browser.open(studio + where)
        browser.wait("document.body.innerText.includes('onerror') || location.pathname === '/compare'")
        assert browser.run("document.querySelectorAll('img[src=\"x\"]').length") == 0
    browser.open(f"{studio}/run/{seeded.ids['hostile']}")
    browser.wait(READY)
    for key in browser.run("[...document.querySelectorAll('#jade-run .jg-box')].map((b) => b.dataset.key)"):
        browser.click(box(key))
        browser.wait(f"document.querySelector('{box(key)}').classList.contains('jg-chosen')")
    assert (
        browser.run("[...document.querySelectorAll('script')].filter((s) => s.textContent.includes('pwned')).length")
        == 0
    )


def test_two_versions_are_compared_question_by_question(studio, seeded, browser):
    browser.open(f"{studio}/compare?a=jade+%40+one&b=jade+%40+two")
    browser.wait("document.querySelectorAll('.st-change').length === 6")
    text = browser.text()
    assert "6 questions in common" in text
    assert "Too few questions to tell which is better" in text
    assert "They part at PL, the question" in text
    turns = browser.run("[...document.querySelectorAll('.st-turn-n')].map((n) => n.innerText)")
    assert turns == ["3", "3", "0 %", "0 %"]
    browser.click(".st-turn-right")
    browser.wait("document.querySelectorAll('.st-change').length === 3")
    browser.click(".st-change a")
    browser.wait("location.pathname === '/pair'")
    browser.wait("document.getElementById('jade-difference')?.innerText.includes('First difference')")


def test_a_corpus_is_searched_as_the_graph_searches(studio, browser):
    browser.open(f"{studio}/corpus?corpus=doors&q=left+of+the+door")
    browser.wait("document.querySelectorAll('.st-rank').length === 3")
    titles = browser.run("[...document.querySelectorAll('.st-rank h2')].map((h) => h.innerText.split('\\n')[0])")
    assert titles == ["By words", "Fused", "By meaning"]
    assert browser.run("document.querySelector('.st-rank-bm25 .st-passage-title').innerText") == "Left"


def learned(seeded, iterations):
    """The file of a learning run so far."""
    folder = seeded.folder / "learned"
    folder.mkdir(exist_ok=True)
    line = '{"iteration": %d, "reward": 0.1, "reward/f1": 0.2, "plan_entropy": 2.0, "calls": 3.0, "kl_old": 0.01}\n'
    (folder / "metrics.jsonl").write_text("".join(line % i for i in range(iterations)))


def test_learning_curves_are_drawn_and_follow_the_file(studio, seeded, browser):
    learned(seeded, 2)
    browser.open(f"{studio}/learning?folder=learned")
    browser.wait("document.querySelectorAll('.st-chart canvas').length >= 4")
    assert "2 iterations" in browser.text()
    browser.wait("document.body.innerText.includes('No version is registered yet')")
    assert "jade register learned" in browser.text()
    learned(seeded, 3)
    browser.wait("document.body.innerText.includes('3 iterations')")


def test_empty_states_say_what_to_do_next(studio, seeded, browser):
    learned(seeded, 3)
    browser.open(f"{studio}/learning?folder=nowhere")  # an address opens no folder: what is found is shown
    browser.wait("document.body.innerText.includes('3 iterations')")
    assert "nowhere" not in browser.text()
    browser.open(f"{studio}/pair")
    browser.wait("document.body.innerText.includes('Two runs are needed')")
    browser.open(f"{studio}/nowhere")
    browser.wait("document.body.innerText.includes('There is no such page')")
    assert browser.run("document.querySelectorAll('.st-nav').length") == 5
    assert browser.errors
    assert all("status of 404" in told for told in browser.errors)
    browser.errors.clear()


NAMELESS = """
[...document.querySelectorAll('button, a, input, textarea, [role=button]')].filter((e) => e.offsetParent
  && !(e.innerText || '').trim() && !e.getAttribute('aria-label') && !e.title && !e.closest('[aria-label]'))
  .map((e) => e.outerHTML.slice(0, 160))
"""
CUT = """
[...document.querySelectorAll('#jade-run .jg-tree .jg-box')].filter((box) => {
  const s = box.querySelector('.jg-shape').getBBox();
  return [...box.querySelectorAll('text')].filter((t) => !t.closest('.jg-mark')).some((t) => {
    const r = t.getBBox();
    return r.x < s.x || r.x + r.width > s.x + s.width || r.y < s.y || r.y + r.height > s.y + s.height;
  });
}).map((box) => box.textContent)
"""
SHOWN = "document.querySelectorAll('.jg-box, .st-table tbody tr, .st-ask, .st-passage, .st-change').length > 0"


def test_nothing_is_cut_and_every_control_has_a_name(studio, seeded, browser):
    compared = "/compare?a=jade+%40+one&b=jade+%40+two"
    try:
        for where in ("/", f"/run/{seeded.ids['two-q1']}", "/ask", "/corpus?q=door", compared):
            browser.open(studio + where)
            browser.wait(SHOWN)
            for width, dark in ((1280, False), (1280, True), (1920, True), (1920, False)):
                browser.resize(width, 900)
                browser.dark(dark)
                is_dark = "document.body.classList.contains('body--dark')"
                browser.wait(f"innerWidth === {width} && {is_dark} === {str(dark).lower()}")
                assert browser.run("document.documentElement.scrollWidth <= innerWidth"), (where, width)
                assert browser.run(NAMELESS) == [], where
                if where.startswith("/run"):
                    assert browser.run(CUT) == []
    finally:
        browser.dark(False)
        browser.resize(1280, 860)


def test_a_decision_is_looked_into(studio, seeded, browser):
    from jade_graph import JadeGraph, RunStore, load_backbone
    from jade_graph.retrieval.memory import MemoryRetriever
    from jade_graph.types import Passage

    passages = [Passage(str(i), f"{name} Hopkins is employed by Apex Corporation.", f"{name} Hopkins")
                for i, name in enumerate(("Dora", "Selma", "Faye"))]  # fmt: skip
    with RunStore(seeded.folder / ".jade" / "runs.db") as store:
        graph = JadeGraph(load_backbone("tiny"), retriever=MemoryRetriever(passages), recorder=store)
        run = graph.run("Which company employs Dora Hopkins?", plan="R,DS,AG", run_id="inside".ljust(32, "0"))
    seq = next(t.seq for t in run.transitions if t.role == "DS")
    browser.open(f"{studio}/run/{run.id}?box=a{seq}")
    browser.wait(READY)
    browser.wait("document.querySelectorAll('.lk-tabs [role=tab]').length === 2")
    assert browser.run("document.querySelector('.lk').hidden")
    browser.run("document.querySelector('.lk-tabs [role=tab]').focus()")
    browser.press("ArrowRight")
    browser.wait("document.activeElement.id === 'lk-tab' && !document.querySelector('.lk').hidden")
    assert browser.run("[...document.querySelectorAll('.jv-side > .jv-section:not(.lk)')].every((s) => s.hidden)")
    browser.click(".lk-form button")  # the settings' model is scripted: nothing to look into, and it says so
    browser.wait("document.querySelector('.lk [role=status]').innerText.includes('LOOK_MODEL')")
    browser.run("document.querySelector('.lk-form input').value = 'tiny'")
    browser.click(".lk-form button")
    browser.wait("document.querySelectorAll('.lk-map').length === 4")
    assert browser.run("document.querySelector('.lk-map caption').innerText") == "Residual stream"
    table = "[...document.querySelectorAll('.lk-map')][0]"
    assert browser.run(f"{table}.querySelectorAll('tbody tr').length") == 5
    assert browser.run(f"[...{table}.querySelectorAll('tbody th')].every((h) => h.scope === 'row')")
    swapped = browser.run(f"[...{table}.querySelectorAll('thead th')].findIndex((h) => h.innerText === 'swapped')")
    assert browser.run(f"{table}.querySelector('tbody tr').children[{swapped}].innerText") == "1.00"
    assert "Dora Hopkins" in browser.run("document.querySelector('.lk-swapped').innerText")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
