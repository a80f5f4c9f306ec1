"""What `JadeGraph` has by its engine: methods and attributes, said once, in the engine.

Invariant: a method keeps its signature, its words and its kind (coroutine function, async generator function), so that
whoever inspects it sees the engine's own.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Generic, Never, ParamSpec, Protocol, Self, TypeVar, cast, overload

from jade_graph.workflow.engine import Engine


class Around(Protocol):
    """Whoever has an engine."""

    engine: Engine


P = ParamSpec("P")
R = TypeVar("R")
G = TypeVar("G", bound=Around)


class EngineAttribute(Generic[R]):
    """What the engine is made of, to be read."""

    def __init__(self, read: Callable[[Engine], R]) -> None:
        self._read = read

    @overload
    def __get__(self, graph: None, owner: type[Around]) -> Self: ...
    @overload
    def __get__(self, graph: Around, owner: type[Around]) -> R: ...
    def __get__(self, graph: Around | None, owner: type[Around]) -> R | Self:
        return self if graph is None else self._read(graph.engine)

    def __set__(self, graph: Around, value: Never) -> None:
        raise AttributeError("a graph's parts are handed in when it is made: JadeGraph(..), or variant(..)")


def engine_method(method: Callable[Concatenate[Engine, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A method that the engine carries out."""
    call: Any
    if inspect.iscoroutinefunction(method):

        async def call(self: Around, /, *args: Any, **kwargs: Any) -> Any:
            return await method(self.engine, *args, **kwargs)

    elif inspect.isasyncgenfunction(method):

        async def call(self: Around, /, *args: Any, **kwargs: Any) -> Any:
            async with contextlib.aclosing(method(self.engine, *args, **kwargs)) as items:
                async for item in items:
                    yield item

    else:

        def call(self: Around, /, *args: Any, **kwargs: Any) -> Any:
            return method(self.engine, *args, **kwargs)

    return cast("Callable[Concatenate[Any, P], R]", wraps(method)(call))
