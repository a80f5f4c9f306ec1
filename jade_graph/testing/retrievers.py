"""The conformance suite of retrievers: what the engine relies on, as a pytest class that third parties inherit.

Invariant: every rule of `jade_graph.types.Retriever` has one test here, and a retriever that passes them all can be
put behind any graph. Use::

    class TestMine(RetrieverConformance):
        queries = ("who wrote the annals", "ports of the north")

        @pytest.fixture
        def retriever(self):
            return MyRetriever(...)
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from jade_graph.errors import JadeError
from jade_graph.types import Passage, Retriever

_ODD = ("?", "#1", "a" * 3000, "word " * 600, "é漢🎬", "<query>x</query>", "\x00", "'; DROP TABLE passages; --", "\n\t")


class RetrieverConformance:
    """Inherit, and give the fixture `retriever`; `queries` are some that find passages.

    The tests are coroutine-free, so they need no pytest plug-in.
    """

    queries: ClassVar[tuple[str, ...]] = ("the", "who", "city", "film")

    def test_satisfies_the_protocol(self, retriever: Retriever) -> None:
        assert isinstance(retriever, Retriever)

    def test_corpus_id_is_a_stable_text(self, retriever: Retriever) -> None:
        assert isinstance(retriever.corpus_id, str)
        assert retriever.corpus_id.strip()
        first = retriever.corpus_id
        self._search(retriever, self.queries[0], 3)
        assert retriever.corpus_id == first

    def test_some_query_finds_something(self, retriever: Retriever) -> None:
        assert any(self._search(retriever, query, 5) for query in self.queries)

    def test_at_most_k_and_no_id_twice(self, retriever: Retriever) -> None:
        for query in self.queries:
            for k in (1, 2, 5, 50):
                found = self._search(retriever, query, k)
                ids = [passage.id for passage in found]
                assert len(ids) <= k
                assert len(set(ids)) == len(ids)

    def test_gives_passages_with_id_and_text(self, retriever: Retriever) -> None:
        for query in self.queries:
            for passage in self._search(retriever, query, 5):
                assert isinstance(passage, Passage)
                assert passage.id
                assert str(passage).strip()

    def test_best_first(self, retriever: Retriever) -> None:
        for query in self.queries:
            scores = [passage.score for passage in self._search(retriever, query, 20)]
            assert scores == sorted(scores, reverse=True)

    def test_same_query_same_ranking(self, retriever: Retriever) -> None:
        for query in self.queries:
            first, again = (self._search(retriever, query, 10) for _ in range(2))
            assert [p.id for p in first] == [p.id for p in again]

    def test_query_without_text_finds_nothing(self, retriever: Retriever) -> None:
        assert self._search(retriever, "", 5) == []
        assert self._search(retriever, " \n ", 5) == []

    def test_k_below_one_is_refused(self, retriever: Retriever) -> None:
        for k in (0, -1):
            code = None
            try:
                self._search(retriever, self.queries[0], k)
            except JadeError as error:
                code = error.error_code
            assert code, f"k = {k} was accepted; a JadeError is due"

    def test_odd_queries_do_not_raise(self, retriever: Retriever) -> None:
        for query in _ODD:
            assert len(self._search(retriever, query, 3)) <= 3

    def test_concurrent_searches_are_like_lone_ones(self, retriever: Retriever) -> None:
        asked = list(self.queries) * 8

        async def together() -> list[list[Passage]]:
            return await asyncio.gather(*(retriever.search(query, 5) for query in asked))

        lone = {query: [p.id for p in self._search(retriever, query, 5)] for query in self.queries}
        for query, found in zip(asked, asyncio.run(together()), strict=True):
            assert [p.id for p in found] == lone[query]

    def test_a_cancelled_search_harms_no_other(self, retriever: Retriever) -> None:
        async def one_cancelled() -> list[Passage]:
            dropped = asyncio.create_task(retriever.search(self.queries[0], 5))
            kept = asyncio.create_task(retriever.search(self.queries[-1], 5))
            await asyncio.sleep(0)
            dropped.cancel()
            return await kept

        found = asyncio.run(one_cancelled())
        assert [p.id for p in found] == [p.id for p in self._search(retriever, self.queries[-1], 5)]

    def _search(self, retriever: Retriever, query: str, k: int) -> list[Passage]:
        return asyncio.run(retriever.search(query, k))
