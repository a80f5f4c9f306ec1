"""What of a run's answer has been shown while it is written.

Invariant: the texts of the "token" events since the last "retract" make up what is shown, and when the run is answered
they make up its answer. Nothing is shown but what stands within the answering role's tag, white space as in the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jade_graph.types import Event, Message, Thought, Watch
from jade_graph.workflow import tags


@dataclass(slots=True)
class Speech:
    """The answer of one run as far as it is shown.

    Args:
        run_id: whose it is.
        tell: shows an event to whoever watches the run.
        role, place: who writes it, and the question that is answered.
        prompt: what the role was asked, once it was.
        also: shows an event elsewhere too, while a role is at work.
    """

    run_id: str
    tell: Callable[[Event], None]
    role: str = ""
    place: str = ""
    said: str = ""
    prompt: tuple[Message, ...] = ()
    also: Callable[[Event], None] | None = None

    def begin(self, role: str, place: str) -> None:
        """Another action is to give the answer: what an earlier one said was none."""
        self.take_back()
        self.role, self.place, self.prompt = role, place, ()

    def say(self, text: str) -> None:
        if text:
            self.said += text
            self._show("token", text)

    def take_back(self) -> None:
        """What was said is not the answer."""
        if self.said:
            self.said = ""
            self._show("retract")

    def settle(self, answer: str) -> None:
        """The answer is known: say what is missing, or all of it anew where it does not go on as it began."""
        if not answer.startswith(self.said):
            self.take_back()
        self.say(answer[len(self.said) :])

    def hearing(self, tag: str | None, thought: Thought | None, prompt: tuple[Message, ...]) -> Watch | None:
        """What hears the role's action; None for a role that names no tag: its answer is said once it is read."""
        self.prompt = prompt
        if tag is None:
            return None
        named, whole, due = tag, "", 0

        def hear(piece: str) -> None:
            nonlocal whole, due
            whole += piece
            if len(whole) < due:
                return
            due = len(whole) + len(whole) // 64  # what is long is read now and then: its length costs no square
            found = beginning(whole if thought is None else thought.spoken(whole), named)
            if found.startswith(self.said):
                self.say(found[len(self.said) :])

        return hear

    def _show(self, kind: str, text: str = "") -> None:
        event = Event(kind, self.run_id, text=text, role=self.role, trace_node=self.place)
        self.tell(event)
        if self.also is not None:
            self.also(event)


def beginning(text: str, tag: str) -> str:
    """What is certain of the first `<tag>` that is not empty, of a text that may go on: a beginning of what it will
    hold, white space normalised, without what may become the closing tag.
    """
    opens, closes = tags.ends(tag)
    at = 0
    while (opening := opens.search(text, at)) is not None:
        closing = closes.search(text, opening.end())
        inner = text[opening.end() : closing.start() if closing is not None else len(text)]
        if closing is None:
            last = inner.rfind("<")
            if last >= 0 and f"</{tag}>".startswith(inner[last:].lower()):
                inner = inner[:last]
        said = " ".join(inner.split())
        if said or closing is None:
            return said
        at = closing.end()
    return ""
