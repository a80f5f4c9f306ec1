"""Demonstrations out of questions: what is right follows from the data set and from what a role sees, and is legal."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from jade_graph import Passage, Question
from jade_graph.errors import DataError
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.types import Ask, SubQuestion, View
from jade_training.supervised import teaching

PASSAGES = [
    Passage("dune", "Dune is a novel by Frank Herbert.", "Dune"),
    Passage("herbert", "Frank Herbert was born on October 8, 1920.", "Frank Herbert"),
    Passage("emma", "Emma is a novel by Jane Austen.", "Emma"),
    Passage("austen", "Jane Austen was born on 16 December 1775.", "Jane Austen"),
    Passage("ubik", "Ubik is a novel that appeared in 1969.", "Ubik"),
]
BRIDGE = Question(
    "b",
    "When was the writer of Dune born?",
    ("October 8, 1920",),
    hops=2,
    supporting=("dune", "herbert"),
    decomposition=(
        SubQuestion("Dune >> author", "Frank Herbert", ("dune",)),
        SubQuestion("When was Frank Herbert born?", "October 8, 1920", ("herbert",)),
    ),
)
COMPARISON = Question(
    "c",
    "Whose writer was born first, Dune or Emma?",
    ("Emma",),
    hops=2,
    decomposition=(
        SubQuestion("When was the writer of Dune born?", "1920", ()),
        SubQuestion("When was the writer of Emma born?", "1775", ()),
    ),
)
PLAIN = Question("p", "Who wrote Ubik?", ("Philip K. Dick",), supporting=())


async def taught(*questions: Question, **options: Any) -> tuple[list[Any], Counter[str]]:
    lessons = [teaching.lesson(q) for q in questions]
    return await teaching.teach([each for each in lessons if each], MemoryRetriever(PASSAGES, "bm25"), **options)


# --- what can be taught -----------------------------------------------------------------------------------------------
def test_steps_refer_to_earlier_answers_and_triples_are_asked() -> None:
    found = teaching.lesson(BRIDGE)
    assert found is not None
    assert [part.question for part in found.parts] == ["Who is the author of Dune?", "When was #1 born?"]
    assert found.plan == "QDS"


def test_the_plan_follows_from_the_decomposition() -> None:
    plans = {q.id: found.plan for q in (BRIDGE, COMPARISON, PLAIN) if (found := teaching.lesson(q))}
    assert plans == {"b": "QDS", "c": "QDP", "p": "R,AG"}


@pytest.mark.parametrize(
    "question",
    [
        Question("q", "Who?", ()),
        Question("q", "Who?", ("word " * 50,)),
        Question("q", "Who?", ("x",), decomposition=(SubQuestion("Who?", "x"), SubQuestion("When?", "y"))),
        Question("q", "Who?", ("x",), decomposition=(SubQuestion("A?", "x"), SubQuestion("a?", "y"))),
        Question("q", "Who?", ("x",), decomposition=(SubQuestion("A?", ""), SubQuestion("B?", "y"))),
        Question("q", "Who?", ("x",), decomposition=tuple(SubQuestion(f"{c}?", c) for c in "abcde")),
    ],
    ids=["no answer", "long answer", "itself", "twice", "no part's answer", "too many parts"],
)
def test_what_no_role_could_write_is_no_lesson(question: Question) -> None:
    assert teaching.lesson(question) is None


def test_parts_are_questions_of_their_own_with_the_answers_put_in() -> None:
    found = teaching.single([each for q in (BRIDGE, COMPARISON) if (each := teaching.lesson(q))])
    assert [(each.question.id, each.question.question, each.question.answers) for each in found] == [
        ("b.1", "Who is the author of Dune?", ("Frank Herbert",)),
        ("b.2", "When was Frank Herbert born?", ("October 8, 1920",)),
        ("c.1", "When was the writer of Dune born?", ("1920",)),
        ("c.2", "When was the writer of Emma born?", ("1775",)),
    ]
    assert {each.plan for each in found} == {"R,AG"}


@pytest.mark.parametrize("text", ["Who wrote Dune?", "who is it", "?", "Dune", "a b"])
def test_keywords_are_a_legal_query(text: str) -> None:
    query = teaching.keywords(text)
    assert query.strip()
    assert query.casefold() != text.casefold()


# --- what is taught ---------------------------------------------------------------------------------------------------
async def test_every_role_is_shown_what_is_right_for_what_it_sees() -> None:
    # Another plan is carried out now and then, so that every role is met: a few seeds meet them all.
    shown = [s for seed in range(8) for s in (await taught(BRIDGE, COMPARISON, PLAIN, seed=seed, unknown=1.0))[0]]
    said = {(s.question_id, s.role): s.action for s in shown}
    assert said["b", "QDS"] == "<q1>Who is the author of Dune?</q1><q2>When was #1 born?</q2>"
    assert said["b", "AS"] == "<answer>October 8, 1920</answer>"
    plans = {s.action for s in shown if s.role == "PL" and "plan root" in s.messages[0].content}
    assert plans == {"<workflow>QDS</workflow>", "<workflow>QDP</workflow>", "<workflow>R,AG</workflow>"}
    # Fixed graphs rewrite whole questions of several steps: a rewriter that saw steps alone writes steps for them.
    rewritten = {s.action for s in shown if s.role == "QR" and s.messages[-1].content.endswith(f"{BRIDGE.question}\n")}
    assert rewritten == {"<query>writer Dune born</query>"}
    # No passage states it: the run goes on with the gold answer, and "unknown" is taught.
    assert said["p", "AG"] == "<answer>unknown</answer>"
    answers = {s.action for s in shown if s.role == "AG" and s.question_id == "b"}
    assert "<answer>Frank Herbert</answer>" in answers


async def test_documents_are_chosen_by_what_supports_or_states_the_answer() -> None:
    found = [await taught(BRIDGE, seed=seed) for seed in range(12)]
    chosen = [s for shown, _ in found for s in shown if s.role == "DS"]
    assert chosen
    for each in chosen:
        lines = each.messages[0].content.splitlines()
        kept = [int(n) for n in re.findall(r"Document(\d+)", each.action)]
        whole = "writer" in lines[-1]  # the steps say "author"
        wanted = ("Dune:", "Frank Herbert:") if whole else ("Dune:",) if "Dune" in lines[-1] else ("Frank Herbert:",)
        assert [i for i, line in enumerate(lines[:-1]) if line.partition(" : ")[2].startswith(wanted)] == kept


async def test_unknown_is_taught_no_more_often_than_its_share() -> None:
    many = [Question(f"u{i}", f"Who wrote book {i}?", ("Nobody Known",)) for i in range(20)] + [
        Question(f"k{i}", f"Who wrote Dune, copy {i}?", ("Frank Herbert",)) for i in range(12)
    ]
    shown, left = await taught(*many, unknown=0.25)
    answers = Counter(s.action for s in shown if s.role == "AG")
    assert answers["<answer>unknown</answer>"] == answers["<answer>Frank Herbert</answer>"] // 3
    assert left["AG unknown, beyond its share"] > 10


@pytest.mark.parametrize("profile", ["brief", "chat", "compact"])
async def test_the_same_arguments_give_the_same_demonstrations_each_legal(profile: str) -> None:
    one, two = [await taught(BRIDGE, COMPARISON, PLAIN, seed=5, profile=profile) for _ in range(2)]
    assert one == two
    assert len(set(one[0])) == len(one[0])
    assert {m.role for s in one[0] for m in s.messages} == ({"system", "user"} if profile == "chat" else {"user"})
    titled = "Document0 : Dune: Dune is" in "".join(m.content for s in one[0] for m in s.messages)
    assert titled == (profile == "brief")


def test_a_teacher_says_what_it_does_not_know() -> None:
    teacher = teaching.Teacher([])
    with pytest.raises(DataError, match="ORACLE_QUESTION"):
        teacher(Ask("AG", View("?", "?", "root"), "nobody"))
    found = teaching.lesson(PLAIN)
    assert found is not None
    with pytest.raises(DataError, match="ORACLE_ROLE"):
        teaching.Teacher([found])(Ask("XX", View("?", "?", "root"), "p"))


class Refusing(MemoryRetriever):
    """Finds nothing but an error for one question."""

    async def search(self, query: str, k: int) -> list[Passage]:
        if "Ubik" in query:
            raise RuntimeError("no such shelf")
        return await super().search(query, k)


async def test_one_question_whose_run_fails_is_named_and_the_others_are_taught() -> None:
    lessons = [known for q in (COMPARISON, PLAIN) if (known := teaching.lesson(q))]
    found, left = await teaching.teach(lessons, Refusing(PASSAGES, "bm25"))
    assert {shown.question_id for shown in found} == {"c"}
    assert any("'p' failed" in why for why in left)
    with pytest.raises(DataError, match="ORACLE_RUN"):
        await teaching.teach(lessons[1:], Refusing(PASSAGES, "bm25"))
