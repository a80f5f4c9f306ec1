"""An oracle that sometimes errs, so that demonstrations show what is right after a mistake.

Invariant: what it writes is legal, for only then the mistake reaches the roles behind; whether and how it errs depends
on the seed, the question and the place in the run alone. Roles that do not search never err.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from jade_graph.microworld import frames
from jade_graph.microworld.frames import UNKNOWN
from jade_graph.microworld.oracle import OraclePolicy
from jade_graph.microworld.searching import NOTHING
from jade_graph.types import Ask, View

LONGEST = 20
"""Words of a question that may be a step: behind a long preamble it would be no legal one."""
Place = tuple[str, str, str, int]
"""Question id, trace node, role, round: each role of a loop acts once a round."""


class Straying:
    """A policy: the oracle's action, or with probability `share` a wrong one in its place.

    | role | does wrong |
    |---|---|
    | KP | takes the whole question as the only step |
    | KS, SR | searches for the whole question at once |
    | KE | finds nothing, or another value that the documents state |
    | KU | adds what belongs over a step, or writes it over another one |
    | KA | says that it does not know, or the answer of some step |

    `righted` has the right action of every place at which it erred.
    """

    def __init__(self, oracle: OraclePolicy, share: float, seed: int = 0) -> None:
        self._oracle, self._share, self._seed = oracle, share, seed
        self.righted: dict[Place, str] = {}
        self._wrong: dict[str, Callable[[View, random.Random], str]] = {
            "KP": self._plan,
            "KS": self._search,
            "SR": self._search,
            "KE": self._evidence,
            "KU": self._update,
            "KA": self._answer,
        }

    def __call__(self, ask: Ask) -> str:
        right = self._oracle(ask)
        place = (ask.question_id, ask.trace_node, ask.role, ask.view.counters.rounds)
        rng = random.Random(f"straying {self._seed} {place}")
        wrong = self._wrong.get(ask.role)
        if wrong is None or rng.random() >= self._share or "<end>" in right or "<answer>" in right:
            return right
        written = wrong(ask.view, rng)
        if not written or written == right:
            return right
        self.righted[place] = right
        return written

    def _plan(self, view: View, rng: random.Random) -> str:
        del rng
        question = " ".join(view.question.split())
        if len(question.split()) > LONGEST:
            return ""
        return f"<q1>{question}</q1><a1>{UNKNOWN}</a1><final_answer>{UNKNOWN}</final_answer>"

    def _search(self, view: View, rng: random.Random) -> str:
        del rng
        frame = self._oracle.frame(view.question)
        query = frames.query(frame) if frame else ""
        asked = (*(view.memory.get("asked") or ()), *(q for _, q, _ in view.memory.get("turns") or ()))
        return f"<search>{query}</search>" if query and query not in asked else ""

    def _evidence(self, view: View, rng: random.Random) -> str:
        stated = [v for d in view.memory.get("documents") or () for v in self._oracle.states(d)[1].values()]
        return NOTHING if not stated or rng.random() < 0.5 else f"<evidence>{rng.choice(stated)}</evidence>"

    def _update(self, view: View, rng: random.Random) -> str:
        count = len(view.memory.get("steps") or ())
        if rng.random() < 0.5:
            return f"<add>t{count + 1}</add>"
        return f"<update>t{rng.randint(1, count)}</update>" if count else ""

    def _answer(self, view: View, rng: random.Random) -> str:
        said = [str(a) for _, a in view.memory.get("steps") or () if a != NOTHING]
        return f"<final_answer>{rng.choice([UNKNOWN, *said])}</final_answer>"
