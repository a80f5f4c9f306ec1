"""The presets: methods as configurations of the one engine.

Invariant: a preset holds no code. Whatever differs between methods is a field of `Preset`. Source: JADE section 5 and
the published code of JADE, MAO-ARAG and MMOA-RAG; M-ASK (arXiv 2601.04703); Search-R1 (arXiv 2503.09516).
"""

from __future__ import annotations

from jade_graph.types import Preset

JADE = Preset(
    "jade",
    "JADE: planner and executors, trained jointly",
    description="The planner writes a workflow per question and per sub-question; every role is trainable.",
    limits={"depth": 2},
    compress=("AG", "AS"),
)
JADE_RERANK = Preset(
    "jade-rerank",
    "JADE, and the planner may have passages ranked again",
    plan_rules=("jade", "rerank"),
    description="The plans of jade, and each of them that retrieves with RR behind R: R,RR,AG (E2Rank).",
    limits={"depth": 2},
)
JADE_CODE = Preset(
    "jade-code",
    "JADE as published code",
    description="Two levels, format penalty -2, the outcome broadcast to every call, no cost terms.",
    limits={"depth": 1},
    penalties={"*": -2.0},
    credit="broadcast",
)
MAO_ARAG = Preset(
    "mao-arag",
    "MAO-ARAG: a trained planner over frozen executors",
    description="The same graph; only the planner is trainable, a frozen copy of the backbone answers for the rest.",
    trainable=frozenset({"PL"}),
    limits={"depth": 1},
    alpha=0.1,
    beta=0.1,
    credit="broadcast",
)
MMOA_RAG = Preset(
    "mmoa-rag",
    "MMOA-RAG: a fixed pipeline, trained jointly",
    plan="QR,R,DS,AG",
    description="Every question takes QR,R,DS,AG; no planner. Up to four rewritten queries are searched at once.",
    limits={"depth": 0},
    role_options={"QR": {"max_queries": 4, "max_chars": 300}, "AG": {"max_words": 30}},
    penalties={"QR": -0.5, "DS": -1.0, "AG": -1.0},
    credit="broadcast",
)
VANILLA_RAG = Preset(
    "vanilla-rag",
    "Vanilla RAG: retrieve, then answer",
    plan="R,AG",
    description="Every question takes R,AG; nothing is trained. The baseline.",
    trainable=frozenset(),
    limits={"depth": 0},
)
M_ASK = Preset(
    "m-ask",
    "M-ASK: search and knowledge agents with turn-level rewards",
    description="A plan becomes knowledge that turns of search, summary, update and answer improve; no plan grammar.",
    loop="m-ask",
    limits={"depth": 0, "rounds": 4},
    credit="turn",
    compress=("KE",),
)
SEARCH_R1 = Preset(
    "search-r1",
    "Search-R1: one role in one growing context",
    description="One role thinks, searches and answers, with all it wrote and found before its eyes. The baseline.",
    loop="search-r1",
    limits={"depth": 0, "rounds": 4},
    credit="broadcast",
    compress=("SR",),
)
