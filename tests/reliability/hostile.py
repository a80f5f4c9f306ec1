"""Texts that a model should not write: pieces of every role's format, cut, nested, repeated, in odd characters."""

from __future__ import annotations

import random

TAGS = ("workflow", "answer", "query", "id", "q1", "q2", "a1", "think", "search", "evidence", "final_answer", "end",
        "information", "update", "summary", "docs")  # fmt: skip
PIECES = (
    *("", " ", "\n", "\0", "\x1b[31m", "\u2028", "\u202e", "\ud800", "\udfff", "é漢🎬", "‹answer›", "&lt;answer&gt;"),
    *("#1", "#99999999999", "R,AG", "QDS", "QDP", "QR,R,DS,AG", "R" * 50, ",".join(["R"] * 60), "Document0"),
    *(
        "Document9999999999999999999999",
        "Document-1",
        "yes",
        "unknown",
        "٣",
        "１",
        "-1",
        "1e309",
        "NaN",
        "None",
        "{}",
        "[[",
    ),
    *(
        "null",
        "'; drop table runs; --",
        "../../etc/passwd",
        "{{ 7*7 }}",
        "${jndi:ldap://x}",
        "%s%n",
        "<script>",
        "<!--",
    ),
    *("-->", "<![CDATA[", "</", "<", ">", "<<", "a" * 300, "word " * 120),
)
LEGAL = {
    "PL": "<workflow>R,AG</workflow>",
    "QDS": "<q1>who?</q1><q2>when was #1 born?</q2>",
    "QDP": "<q1>left?</q1><q2>right?</q2>",
    "QR": "<query>rewritten</query>",
    "DS": "<id>Document0</id>",
    "AG": "<answer>Ann Lee</answer>",
    "AS": "<answer>1950</answer>",
}


def text(rng: random.Random) -> str:
    """One hostile output, mostly short; one in a thousand is as long as hosted models go."""
    if rng.random() < 0.001:
        piece = rng.choice((*(f"<{tag}>" for tag in TAGS), "</answer>", "<q1>x", "a ", "<", "\n"))
        return piece * rng.randint(1000, 100_000 // len(piece))
    out = []
    for _ in range(rng.randint(1, 8)):
        tag = rng.choice(TAGS)
        kind = rng.random()
        inner = rng.choice(PIECES)
        if kind < 0.35:
            out.append(f"<{tag}>{inner}</{tag}>")
        elif kind < 0.5:
            out.append(f"<{tag.upper()}>{inner}</{tag}>")
        elif kind < 0.6:
            out.append(f"<{tag}>{inner}")
        elif kind < 0.7:
            out.append(f"{inner}</{tag}>")
        elif kind < 0.8:
            out.append(rng.choice(list(LEGAL.values())))
        else:
            out.append(inner)
    made = "".join(out)
    if rng.random() < 0.1 and made:  # cut anywhere
        made = made[: rng.randrange(len(made))]
    return made
