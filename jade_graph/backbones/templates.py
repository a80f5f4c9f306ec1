"""A chat template rendered within a budget: a model's folder brings it, so it is a stranger's program.

Invariant: it renders what `tokenizer.apply_chat_template` renders, and comes to an end: every turn of a loop, call,
filter and operator is charged before it is carried out, by the size of what it works on, and who spends more than the
budget is refused. Nothing is computed while the template is compiled.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

from jade_graph.errors import BackboneError

_FIXED = 4_000_000
_PER_CHARACTER = 50
# What a turn of a loop, a call, or an element of a list costs; a character of text costs 1.
_STEP = 20
_LONGEST = 1 << 20
"""Most characters of a template."""
_BITS = 10_000
_WIDTH = 100_000
_WIDE = re.compile(r"\d{6,}")


class TemplateRaisedError(Exception):
    """The template raised: what it said. Some raise on purpose, at roles that they do not know."""


class _SpentError(Exception):
    """The budget is used up, or one operation would use it up."""


class _Purse(threading.local):
    """What is left for the rendering that this thread is doing."""

    left = 0

    def charge(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise _SpentError

    def size(self, value: Any) -> int:
        """What it costs to look at all of a value: shared parts count each time, as they do in its text."""
        if isinstance(value, str | bytes):
            return len(value)
        if isinstance(value, int):
            return value.bit_length() >> 3
        parts: Iterable[Any]
        if isinstance(value, Mapping):
            parts = (part for pair in value.items() for part in pair)
        elif isinstance(value, Sequence | set | frozenset) or type(value).__name__ in ("dict_items", "dict_values"):
            parts = value
        else:
            return 1
        total = 0
        for part in parts:
            self.charge(_STEP)
            total += _STEP + self.size(part)
            if total > self.left:
                raise _SpentError
        return total

    def look(self, value: Any) -> Any:
        """The value, paid for."""
        if value.__class__ is str:
            self.left -= len(value)
            if self.left < 0:
                raise _SpentError
            return value
        self.charge(1 + self.size(value))
        return value

    def turns(self, values: Any, text: int) -> Iterator[Any]:
        """The values of a loop, each paid for, with the `text` that stands in the loop."""
        for value in values:
            self.charge(_STEP + text)
            yield value

    def work(self, arguments: Sequence[Any], owner: str = "") -> None:
        """Pay for a call. Texts may be multiplied by each other (`replace`, `join`) and by numbers (`center`)."""
        total, texts, largest = _STEP, [len(owner), 0], 1
        for argument in arguments:
            if isinstance(argument, str):
                texts.append(len(argument))
            elif isinstance(argument, int | float):
                if not -_WIDTH <= argument <= _WIDTH:
                    raise _SpentError
                largest = max(largest, abs(int(argument)))
            else:
                total += self.size(argument)
        texts.sort()
        longest, other = texts[-1], texts[-2]
        self.charge(total + longest * (1 + other + total // _STEP) + largest + (longest * largest >> 3))


_PURSE = _Purse()


def _charged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that pays before it works. What Jinja passes first (context, environment) costs nothing."""

    @wraps(function)
    def paid(*args: Any, **options: Any) -> Any:
        own = args[1:] if getattr(function, "jinja_pass_arg", None) is not None else args
        if own and isinstance(own[0], str) and _WIDE.search(own[0]) and function.__name__ == "do_format":
            raise _SpentError
        _PURSE.work([*own, *options.values()])
        return function(*args, **options)

    return paid


def _environment() -> Any:
    """transformers' own environment, with every operation charged."""
    from jinja2 import nodes, pass_context
    from jinja2.runtime import Macro
    from transformers.utils import chat_template_utils as library

    made: Any = library
    theirs: Any = made._compile_jinja_template("").environment

    class Charged(type(theirs)):  # type: ignore[misc]
        intercepted_binops = frozenset(("+", "*", "**", "%"))
        text_of_macros = 0

        def _parse(self, source: str, name: Any, filename: Any) -> Any:
            tree = super()._parse(source, name, filename)
            for loop in list(tree.find_all(nodes.For)):
                text = sum(len(data.data) for part in loop.body for data in _within(part, nodes.TemplateData))
                loop.iter = _through("jade_turns", loop.iter, nodes.Const(text))
            for node in list(tree.find_all((nodes.Concat, nodes.List, nodes.Tuple, nodes.Dict, nodes.Compare))):
                if isinstance(node, nodes.Concat):
                    node.nodes = [_through("jade_look", part) for part in node.nodes]
                elif isinstance(node, nodes.Compare):
                    node.expr = _through("jade_look", node.expr)
                    for operand in node.ops:
                        operand.expr = _through("jade_look", operand.expr)
                elif isinstance(node, nodes.Dict):
                    for pair in node.items:
                        pair.value = _through("jade_look", pair.value)
                elif getattr(node, "ctx", "load") == "load":
                    node.items = [_through("jade_look", part) for part in node.items]
            for node in tree.find_all(nodes.Getitem):
                if isinstance(node.arg, nodes.Slice):
                    node.node = _through("jade_look", node.node)
            return tree

        def call(__self, __context: Any, __obj: Any, *args: Any, **options: Any) -> Any:
            owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", "")
            if isinstance(__obj, Macro):
                _PURSE.charge(__self.text_of_macros)
            name = getattr(__obj, "__name__", "")
            text = owner if isinstance(owner, str) else ""
            if name in ("format", "format_map") and any(map(_WIDE.search, (text, *map(str, _plain(args))))):
                raise _SpentError
            _PURSE.work([*args, *options.values()], text)
            return super().call(__context, __obj, *args, **options)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            numbers = isinstance(left, int) and isinstance(right, int)
            if operator == "**" and (not numbers or left.bit_length() * max(right, 1) > _BITS):
                if not isinstance(left, float) and not isinstance(right, float):
                    raise _SpentError
            elif operator == "*" and not numbers:
                sized, count = (right, left) if isinstance(left, int) else (left, right)
                _PURSE.charge((1 + _PURSE.size(sized)) * max(count if isinstance(count, int) else 1, 1))
            elif operator == "*" and left.bit_length() + right.bit_length() > _BITS:
                raise _SpentError
            elif operator == "%" and isinstance(left, str):
                if _WIDE.search(left):
                    raise _SpentError
                _PURSE.work([left, *(right if isinstance(right, tuple) else (right,))])
            else:
                _PURSE.charge(_STEP + _PURSE.size(left) + _PURSE.size(right))
            return super().call_binop(context, operator, left, right)

    @pass_context
    def finalize(_: Any, value: Any) -> Any:  # with a context it is never asked while compiling
        return _PURSE.look(value)

    environment = Charged(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[type(extension) for extension in theirs.extensions.values()],
        optimized=False,
        finalize=finalize,
    )
    environment.globals = {name: value for name, value in theirs.globals.items() if name != "lipsum"}
    environment.filters = {name: _charged(function) for name, function in theirs.filters.items()}
    environment.tests = {name: _charged(function) for name, function in theirs.tests.items()}
    environment.filters |= {"jade_look": _PURSE.look, "jade_turns": _PURSE.turns}
    return environment


def _plain(args: Sequence[Any]) -> list[Any]:
    return [arg for arg in args if isinstance(arg, str | int)]


def _within(node: Any, kind: type[Any]) -> list[Any]:
    return [node, *node.find_all(kind)] if isinstance(node, kind) else list(node.find_all(kind))


def _through(name: str, node: Any, *more: Any) -> Any:
    from jinja2 import nodes

    return nodes.Filter(node, name, list(more), [], None, None, lineno=node.lineno)


@contextmanager
def _budget(amount: int) -> Iterator[None]:
    before, _PURSE.left = _PURSE.left, amount
    try:
        yield
    finally:
        _PURSE.left = before


class ChatTemplate:
    """One tokenizer's chat template, compiled.

    Args:
        source: the template's text.
        variables: what it may read beside the messages: special tokens by name, and options.

    Raises:
        BackboneError: BACKBONE_TEMPLATE, for what is no template.
    """

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        if len(source) > _LONGEST:
            raise refused(f"it has {len(source):,} characters, and {_LONGEST:,} are the most")
        self.source, self._variables = source, dict(variables)
        environment = _environment()
        environment.text_of_macros = 10 * _STEP + len(source)
        try:
            with _budget(_FIXED):
                self._compiled = environment.from_string(source)
        except Exception as error:  # a stranger's program fails as it likes
            raise refused(f"it does not compile: {type(error).__name__}: {str(error)[:200]}") from error

    @classmethod
    def of(cls, tokenizer: Any, options: Mapping[str, Any]) -> ChatTemplate:
        """The template of a transformers tokenizer. Raises as the constructor."""
        try:
            source = tokenizer.get_chat_template() if hasattr(tokenizer, "get_chat_template") else None
        except ValueError as error:  # several templates, and none for plain conversations
            raise refused(str(error)) from error
        return cls(str(source or tokenizer.chat_template), {**tokenizer.special_tokens_map, **options})

    def render(self, conversation: Sequence[Mapping[str, Any]], *, opens: bool = True) -> str:
        """The text of a conversation.

        Args:
            opens: with what opens the assistant's turn behind it.

        Raises:
            TemplateRaisedError: whatever the template raised. BackboneError: BACKBONE_TEMPLATE where it does not end.
        """
        length = sum(len(str(message.get("content", ""))) for message in conversation)
        try:
            with _budget(_FIXED + _PER_CHARACTER * length):
                text: str = self._compiled.render(
                    messages=[dict(message) for message in conversation],
                    tools=None,
                    documents=None,
                    add_generation_prompt=opens,
                    **self._variables,
                )
                return text
        except _SpentError:
            raise refused("it does more than a template has to: it may never end") from None
        except Exception as error:  # a stranger's program fails as it likes
            if isinstance(error, RecursionError | MemoryError):
                raise refused(f"it does more than a template has to: {type(error).__name__}") from error
            raise TemplateRaisedError(f"{type(error).__name__}: {str(error)[:200]}") from error


def refused(why: str) -> BackboneError:
    return BackboneError(
        f"the chat template of this model cannot be used: {why}.",
        code="BACKBONE_TEMPLATE",
        hint='another chat_template.jinja in its folder, or profile="brief" for a model that was taught the roles',
    )
