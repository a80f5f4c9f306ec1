"""Corpora on disk: incremental, crash-safe, and the same as in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jade_graph.errors import JadeError, RetrievalError
from jade_graph.retrieval import corpus as module
from jade_graph.retrieval.chunking import Chunking
from jade_graph.retrieval.corpus import (
    build_corpus,
    is_built,
    list_corpora,
    open_corpus,
    passages_of,
    remove_corpus,
)
from jade_graph.retrieval.documents import Document, Skipped
from jade_graph.retrieval.encoder import HashingEncoder, Vectors
from jade_graph.retrieval.lock import write_lock
from jade_graph.retrieval.manifest import corpus_folder
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.testing.retrievers import RetrieverConformance
from jade_graph.types import Passage


@pytest.fixture(params=["exact", "hnsw"])
def searched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "hnsw":
        monkeypatch.setattr(module, "EXACT_LIMIT", 3)
    return str(request.param)


class TestConformance(RetrieverConformance):
    queries = ("painter born in Norwick", "city with bridges", "Ann Lee", "boats on the river")

    @pytest.fixture
    def retriever(self, searched: str, world: list[Passage], tmp_path: Path) -> Any:
        build_corpus(world, "world", tmp_path, "hash:64")
        opened = open_corpus("world", tmp_path)
        yield opened
        opened.close()


def code_of(error: pytest.ExceptionInfo[Any]) -> str:
    assert isinstance(error.value, JadeError)
    return error.value.error_code


@pytest.mark.parametrize("mode", ["hybrid", "dense", "bm25"])
def test_on_disk_is_as_in_memory(mode: str, world: list[Passage], tmp_path: Path) -> None:
    build_corpus(world, "world", tmp_path, "hash:64")
    disk = open_corpus("world", tmp_path, mode=mode)
    memory = MemoryRetriever(world, mode, "hash:64")
    assert disk.corpus_id == memory.corpus_id
    assert disk.passages == memory.passages
    for query in ("painter in Rusk", "bridges", "Ann Lee", "nothing at all"):
        here, there = disk.search_sync(query, 9), memory.search_sync(query, 9)
        assert [p.id for p in here] == [p.id for p in there]
        assert [p.score for p in here] == pytest.approx([p.score for p in there], abs=1e-5)


def test_manifest_tells_what_was_done(world: list[Passage], tmp_path: Path) -> None:
    items = [*world, world[0], Passage("copy", world[1].text, world[1].title), Passage("blank", "")]
    made = build_corpus(items, "w", tmp_path, "hash:64", source="here", skipped=[Skipped("x.pdf", "encrypted")])
    assert (made.passages, made.documents, made.dropped) == (13, 15, 2)
    assert (made.embedded, made.reused, made.removed) == (12, 0, 0)  # equal content is embedded once
    assert made.skipped == ({"source": "x.pdf", "reason": "encrypted"},)
    assert (made.encoder, made.encoder_spec, made.dim, made.dtype) == ("hash-64-v1", "hash:64", 64, "float32")
    assert made.corpus_id == open_corpus("w", tmp_path).corpus_id
    assert list_corpora(tmp_path) == [made]
    found = open_corpus("w", tmp_path).search_sync(str(world[1]), 2)
    assert {p.id for p in found} == {world[1].id, "copy"}


def test_only_what_changed_is_embedded(world: list[Passage], tmp_path: Path, encoder: Any) -> None:
    first = build_corpus(world, "w", tmp_path, encoder)
    encoder.seen.clear()
    again = build_corpus(list(reversed(world)), "w", tmp_path, encoder)
    assert encoder.seen == []
    assert (again.corpus_id, again.reused) == (first.corpus_id, len(world))
    changed = [*world[1:], Passage("p0", "Ann Lee moved away.", "Ann Lee"), Passage("n", "A new one.")]
    third = build_corpus(changed, "w", tmp_path, encoder)
    assert sorted(encoder.seen) == ["A new one.", "Ann Lee\nAnn Lee moved away."]
    assert (third.embedded, third.reused, third.removed) == (2, len(world) - 1, 1)
    assert third.corpus_id != first.corpus_id
    opened = open_corpus("w", tmp_path)
    assert opened.get(["p0"])[0].text == "Ann Lee moved away."
    assert opened.search_sync("Norwick painter born", 1)[0].id != "p0"


def test_metadata_may_change_without_embedding(tmp_path: Path, encoder: Any) -> None:
    first = build_corpus([Passage("a", "text", metadata={"page": 1})], "w", tmp_path, encoder)
    encoder.seen.clear()
    second = build_corpus([Passage("a", "text", metadata={"page": 2})], "w", tmp_path, encoder)
    assert encoder.seen == []
    assert second.corpus_id == first.corpus_id
    assert open_corpus("w", tmp_path).get(["a"])[0].metadata == {"page": 2}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(st.sets(st.integers(0, 9), min_size=1), min_size=1, max_size=4))
def test_any_history_ends_in_the_last_content(history: list[set[int]], tmp_path: Path) -> None:
    for state in history:
        passages = [Passage(f"p{i}", f"boat number {i}") for i in sorted(state)]
        made = build_corpus(passages, "w", tmp_path, "hash:16")
    opened = open_corpus("w", tmp_path, mode="dense")
    assert opened.corpus_id == MemoryRetriever(passages, "dense", "hash:16").corpus_id
    assert {p.id for p in opened.search_sync("boat", 20)} == {p.id for p in passages}
    assert len(list((corpus_folder("w", tmp_path) / "bm25").iterdir())) == 1
    assert made.embedded + made.reused == len(passages)


def test_odd_texts_survive(tmp_path: Path) -> None:
    texts = ["é漢🎬", "line\nbreak\u2028and\u0085more", 'quotes " and \\', "tab\tand \x00 nul", "#1 " * 50]
    passages = [Passage(f"id {i}/é\n", text, "T\n") for i, text in enumerate(texts)]
    build_corpus(passages, "w", tmp_path, "hash:16")
    assert list(open_corpus("w", tmp_path).passages) == passages


class Interrupted(HashingEncoder):
    """Fails at the n-th batch, as a process that dies there would."""

    def __init__(self, after: int) -> None:
        super().__init__(16)
        self.after = after

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        self.after -= 1
        if self.after < 0:
            raise KeyboardInterrupt
        return super().encode(texts, query=query)


def many(n: int) -> list[Passage]:
    return [Passage(f"p{i}", f"boat {i} on river {i % 7}") for i in range(n)]


def test_a_cut_off_first_build_is_not_opened_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SLICE", 10)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(many(35), "w", tmp_path, Interrupted(2))
    with pytest.raises(RetrievalError) as caught:
        open_corpus("w", tmp_path)
    assert code_of(caught) == "CORPUS_UNFINISHED"
    steps: list[tuple[str, int, int]] = []
    made = build_corpus(many(35), "w", tmp_path, "hash:16", progress=lambda *step: steps.append(step))
    assert (made.embedded, made.reused) == (15, 20)
    assert steps == [("embed", 10, 15), ("embed", 15, 15), ("words", 35, 35), ("save", 1, 1)]
    assert len(open_corpus("w", tmp_path)) == 35


def test_readers_have_the_former_corpus_while_a_build_is_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SLICE", 10)
    first = build_corpus(many(5), "w", tmp_path, "hash:16")
    with pytest.raises(KeyboardInterrupt):
        build_corpus(many(40)[3:], "w", tmp_path, Interrupted(1))
    opened = open_corpus("w", tmp_path)
    assert opened.corpus_id == first.corpus_id
    assert [p.id for p in opened.passages] == [f"p{i}" for i in range(5)]
    assert len(build_corpus(many(40), "w", tmp_path, "hash:16").skipped) == 0


@pytest.mark.parametrize("point", ["_write_words", "Bm25.save", "CorpusManifest.write", "ChromaStore.delete"])
def test_a_build_may_die_anywhere(point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build_corpus(many(6), "w", tmp_path, "hash:16")
    with monkeypatch.context() as patch:

        def die(*args: object, **options: object) -> None:
            raise KeyboardInterrupt

        owner, _, name = point.rpartition(".")
        patch.setattr(getattr(module, owner) if owner else module, name, die)
        with pytest.raises(KeyboardInterrupt):
            build_corpus(many(9)[2:], "w", tmp_path, "hash:16")
    opened = open_corpus("w", tmp_path)
    if point == "ChromaStore.delete":  # dies after the manifest: the new corpus is whole, only its rubbish is left
        assert len(opened) == 7
    else:
        assert opened.corpus_id == before.corpus_id
    after = build_corpus(many(9)[2:], "w", tmp_path, "hash:16")
    assert after.corpus_id == MemoryRetriever(many(9)[2:], "hybrid", "hash:16").corpus_id
    assert sorted(p.name for p in (corpus_folder("w", tmp_path) / "bm25").iterdir()) == [after.generation]
    assert len(open_corpus("w", tmp_path).search_sync("boat", 20)) == 7


BUILD = """
import sys
from jade_graph.retrieval import corpus
from jade_graph.types import Passage
corpus._SLICE = 20
def tell(phase, done, total):
    print(phase, done, flush=True)
    if phase == "embed" and done >= 40:
        sys.stdin.read()
passages = [Passage(f"p{i}", f"boat {i} on river {i % 7}") for i in range(100)]
corpus.build_corpus(passages, "w", sys.argv[1], "hash:16", progress=tell)
"""


def test_a_killed_build_leaves_a_usable_folder_and_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUILD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert [other.stdout.readline() for _ in range(2)] == ["embed 20\n", "embed 40\n"]
        with pytest.raises(RetrievalError, match=f"process {other.pid}") as caught:
            build_corpus(many(100), "w", tmp_path, "hash:16")
        assert code_of(caught) == "CORPUS_LOCKED"
        other.kill()
        other.wait()
    made = build_corpus(many(100), "w", tmp_path, "hash:16")
    assert (made.embedded, made.reused) == (60, 40)
    assert open_corpus("w", tmp_path, mode="dense").search_sync("boat 77", 1)


def test_readers_need_no_lock(world: list[Passage], tmp_path: Path) -> None:
    build_corpus(world, "w", tmp_path, "hash:16")
    with write_lock(corpus_folder("w", tmp_path)):
        assert open_corpus("w", tmp_path).search_sync("painter", 1)


def test_a_reader_that_is_overtaken_by_a_writer_reads_the_newer_corpus(
    world: list[Passage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_corpus(world, "w", tmp_path, "hash:16")
    read = module.require_manifest

    def overtaken(*args: Any) -> Any:
        old = read(*args)
        build_corpus(world[:3], "w", tmp_path, "hash:16")
        return old

    monkeypatch.setattr(module, "require_manifest", overtaken)
    opened = open_corpus("w", tmp_path)
    assert len(opened) == 3
    assert opened.corpus_id == MemoryRetriever(world[:3], "hybrid", "hash:16").corpus_id


def test_another_encoder_is_refused_unless_it_replaces_the_first(world: list[Passage], tmp_path: Path) -> None:
    first = build_corpus(world, "w", tmp_path, "hash:16")
    for call in (lambda: open_corpus("w", tmp_path, "hash:32"), lambda: build_corpus(world, "w", tmp_path, "hash:32")):
        with pytest.raises(RetrievalError) as caught:
            call()
        assert code_of(caught) == "ENCODER_MISMATCH"
        assert "hash-16-v1" in str(caught.value)
    assert open_corpus("w", tmp_path, HashingEncoder(16)).corpus_id == first.corpus_id
    second = build_corpus(world, "w", tmp_path, "hash:32", replace_encoder=True)
    assert (second.embedded, second.dim) == (len(world), 32)
    assert open_corpus("w", tmp_path).search_sync("painter", 1)


def test_word_search_needs_neither_encoder_nor_vectors(
    world: list[Passage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_corpus(world, "w", tmp_path, "hash:16")
    (corpus_folder("w", tmp_path) / "chroma").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(module, "load_encoder", lambda spec: pytest.fail("an encoder was loaded"))
    assert open_corpus("w", tmp_path, mode="bm25").search_sync("bridges Pell", 1)[0].id == "c2"


def test_missing_corpora_are_named_with_what_there_is(world: list[Passage], tmp_path: Path) -> None:
    build_corpus(world, "world", tmp_path, "hash:16")
    with pytest.raises(RetrievalError) as caught:
        open_corpus("wrld", tmp_path)
    assert code_of(caught) == "UNKNOWN_CORPUS"
    assert caught.value.known == ("world",)
    assert "jade index PATH --corpus wrld" in str(caught.value)
    with pytest.raises(JadeError) as caught:
        open_corpus("world", tmp_path, mode="fuzzy")
    assert code_of(caught) == "BAD_RETRIEVAL_MODE"


@pytest.mark.parametrize("part", ["passages.jsonl", "bm25.json", "params.index.json", "data.csc.index.npy"])
def test_damage_is_named(part: str, world: list[Passage], tmp_path: Path) -> None:
    build_corpus(world, "w", tmp_path, "hash:16")
    (path,) = corpus_folder("w", tmp_path).glob(f"bm25/*/{part}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RetrievalError) as caught:
        open_corpus("w", tmp_path)
    assert code_of(caught) == "CORPUS_BROKEN"


def test_lost_vectors_are_named_and_made_again(world: list[Passage], tmp_path: Path) -> None:
    build_corpus(world, "w", tmp_path, "hash:16")
    with module.chroma_store(corpus_folder("w", tmp_path) / "chroma", "hash-16-v1") as store:
        store.delete(sorted(store.rows())[:2])
    with pytest.raises(RetrievalError, match="2 of 12 vectors are missing"):
        open_corpus("w", tmp_path)
    assert build_corpus(world, "w", tmp_path, "hash:16").embedded == 12  # which of the others are whole cannot be told
    assert open_corpus("w", tmp_path).search_sync("painter", 1)


def test_removing(world: list[Passage], tmp_path: Path) -> None:
    build_corpus(world, "w", tmp_path, "hash:16")
    with write_lock(corpus_folder("w", tmp_path)), pytest.raises(RetrievalError) as caught:
        remove_corpus("w", tmp_path)
    assert code_of(caught) == "CORPUS_LOCKED"
    remove_corpus("w", tmp_path)
    assert not corpus_folder("w", tmp_path).exists()
    for call in (lambda: remove_corpus("w", tmp_path), lambda: open_corpus("w", tmp_path)):
        with pytest.raises(RetrievalError) as caught:
            call()
        assert code_of(caught) == "UNKNOWN_CORPUS"
    # The same folder again, in the same process: nothing of the old database may linger.
    assert build_corpus(world, "w", tmp_path, "hash:16").embedded == len(world)


def test_documents_are_cut_and_keep_their_path(tmp_path: Path) -> None:
    text = "# Guide\nIntro words here.\n## Install\n" + "Run the thing now please. " * 6
    document = Document("g.md", text, "Guide", "g.md", markdown=True, metadata={"lang": "en"})
    made = build_corpus(
        [document, Document("t.txt", "Short text.", "t")], "w", tmp_path, "hash:16", chunking=Chunking(20, 5)
    )
    assert (made.documents, made.chunking) == (2, {"size": 20, "overlap": 5})
    passages = {p.id: p for p in open_corpus("w", tmp_path).passages}
    assert sorted(passages) == ["g.md#1", "g.md#2", "g.md#3", "t.txt"]
    assert passages["g.md#1"].title == "Guide"
    assert passages["g.md#2"].title == "Guide > Install"
    assert passages["g.md#2"].metadata == {"lang": "en", "source": "g.md"}
    again = build_corpus([document], "w", tmp_path, "hash:16", chunking=Chunking(21, 5))
    assert again.corpus_id != build_corpus([document], "w", tmp_path, "hash:16", chunking=Chunking(20, 5)).corpus_id


def test_text_put_in_front_does_not_embed_the_rest_again(tmp_path: Path, encoder: Any) -> None:
    paragraphs = [" ".join(f"w{i}x{j}" for j in range(12)) + "." for i in range(5)]
    sizes = Chunking(12, 0)
    build_corpus([Document("a", "\n\n".join(paragraphs))], "w", tmp_path, encoder, chunking=sizes)
    encoder.seen.clear()
    build_corpus([Document("a", "\n\n".join(["New start.", *paragraphs]))], "w", tmp_path, encoder, chunking=sizes)
    assert encoder.seen == ["New start."]


def test_a_document_with_nothing_but_a_title_is_found() -> None:
    assert [p.title for p in passages_of(Document("a", "", "Only a title"))] == ["Only a title"]
    assert passages_of(Document("a", " ")) == []


def test_building_is_quiet(world: list[Passage], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build_corpus(world, "w", tmp_path, "hash:16")
    open_corpus("w", tmp_path).search_sync("painter", 1)
    assert capfd.readouterr() == ("", "")


def test_files_hold_no_pickle_of_ours(world: list[Passage], tmp_path: Path) -> None:
    build_corpus(world, "w", tmp_path, "hash:16")
    names = {p.suffix for p in (corpus_folder("w", tmp_path) / "bm25").rglob("*") if p.is_file()}
    assert names == {".npy", ".json", ".jsonl"}
    assert os.listdir(corpus_folder("w", tmp_path)) != []


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_corpus_that_cannot_be_written_is_searched(
    searched: str, world: list[Passage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import chromadb

    build_corpus(world, "w", tmp_path, "hash:16")
    before = state_of(tmp_path)
    connect = chromadb.PersistentClient

    def elsewhere(path: str, **options: Any) -> Any:
        assert not Path(path).is_relative_to(tmp_path)  # Chroma writes where it opens
        return connect(path, **options)

    monkeypatch.setattr(chromadb, "PersistentClient", elsewhere)
    monkeypatch.setattr(os, "access", lambda *_: False)
    for mode in ("hybrid", "dense", "bm25"):
        opened = open_corpus("w", tmp_path, mode=mode)
        assert opened.search_sync("painter", 1)
        opened.close()
    assert state_of(tmp_path) == before
    assert is_built(world, "w", tmp_path, "hash:16")
    assert not is_built(world[1:], "w", tmp_path, "hash:16")
    assert not is_built(world, "w", tmp_path, "hash:32")


NO_ROOM = OSError(28, "No space left on device", "there")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NO_ROOM, "DISK_FULL"),
        (OSError(122, "Disk quota exceeded"), "DISK_FULL"),
        (OSError(30, "Read-only file system"), "NO_ACCESS"),
        (PermissionError(13, "Permission denied"), "NO_ACCESS"),
        (ValueError("error returned from database: (code: 13) database or disk is full"), "DISK_FULL"),
        (ValueError("(code: 8) attempt to write a readonly database"), "NO_ACCESS"),
        (ValueError("(code: 11) database disk image is malformed"), "CORPUS_BROKEN"),
    ],
)
def test_what_a_disk_does_has_its_name_and_no_advice_destroys(
    error: Exception, code: str, world: list[Passage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import chromadb

    def fail(*args: Any, **options: Any) -> Any:
        raise error

    build_corpus(world, "w", tmp_path, "hash:16")
    with monkeypatch.context() as patch:
        patch.setattr(chromadb, "PersistentClient", fail)
        with pytest.raises(JadeError) as caught:
            open_corpus("w", tmp_path)
    told = [caught]
    if isinstance(error, OSError):
        for n, point in enumerate(("Path.mkdir", "CorpusManifest.write", "Bm25.save"), start=1):
            owner, _, name = point.partition(".")
            with monkeypatch.context() as patch:
                patch.setattr(getattr(module, owner), name, fail)
                with pytest.raises(JadeError) as caught:
                    build_corpus(world[n:], "w", tmp_path, "hash:16")
            told.append(caught)
    for one in told:
        assert code_of(one) == code
        assert "remove" not in one.value.hint
        assert "delete" not in one.value.hint
    assert open_corpus("w", tmp_path).search_sync("painter", 1)


def test_a_builder_waits_for_another_one(world: list[Passage], tmp_path: Path) -> None:
    import threading

    build_corpus(world, "w", tmp_path, "hash:16")
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with write_lock(corpus_folder("w", tmp_path)):
            held.set()
            free.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(30)
    with pytest.raises(RetrievalError) as caught:
        build_corpus(world, "w", tmp_path, "hash:16", wait=0.2)
    assert code_of(caught) == "CORPUS_LOCKED"
    threading.Timer(0.2, free.set).start()
    assert build_corpus(world, "w", tmp_path, "hash:16", wait=30).embedded == 0
    other.join()


@pytest.mark.parametrize(("free", "code"), [(4096, "DISK_FULL"), (1 << 40, "CORPUS_BROKEN")])
def test_a_full_disk_has_its_name_where_chroma_does_not_say_it(
    free: int, code: str, world: list[Passage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any, **options: Any) -> None:
        raise RetrievalError("Failed to apply logs to the metadata segment.", code="CORPUS_BROKEN")

    monkeypatch.setattr(module.ChromaStore, "upsert", failing)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(JadeError) as caught:
        build_corpus(world, "w", tmp_path, "hash:16")
    assert code_of(caught) == code


# --- what is checked is what is searched ------------------------------------------------------------------------------
def _other_array(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _link_out(path: Path) -> None:
    elsewhere = path.parents[3] / "elsewhere"
    elsewhere.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("change", [_other_array, _link_out, Path.unlink])
@pytest.mark.parametrize("suffix", ["passages.jsonl", "*.npy", "bm25.json", "vocab*.json"])
def test_what_is_searched_is_what_was_indexed(
    change: Any, suffix: str, world: list[Passage], tmp_path: Path, encoder: Any
) -> None:
    """A file of an index that is not the one that was sealed is refused before it is read, and made again."""
    build_corpus(world, "world", tmp_path, encoder)
    folder = tmp_path / "corpora" / "world" / "bm25"
    for file in sorted(folder.glob(f"*/{suffix}"))[:1] or pytest.fail(suffix):
        change(file)
    with pytest.raises(RetrievalError) as caught:
        open_corpus("world", tmp_path, encoder, mode="bm25")
    assert code_of(caught) == "CORPUS_BROKEN"
    build_corpus(world, "world", tmp_path, encoder)
    assert open_corpus("world", tmp_path, encoder).search_sync("Ann Lee", 1)[0].title == "Ann Lee"


def test_a_file_that_was_slipped_in_is_refused(world: list[Passage], tmp_path: Path) -> None:
    build_corpus(world, "world", tmp_path, "hash:64")
    folder = next((tmp_path / "corpora" / "world" / "bm25").iterdir())
    (folder / "nonoccurrence_array.index.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(RetrievalError, match="nonoccurrence"):
        open_corpus("world", tmp_path, mode="bm25")


def test_other_vectors_are_refused_and_embedded_anew(world: list[Passage], tmp_path: Path, encoder: Any) -> None:
    from jade_graph.retrieval.dense import chroma_store

    build_corpus(world, "world", tmp_path, encoder)
    right = open_corpus("world", tmp_path, encoder).search_sync("Ann Lee", 3)
    with chroma_store(tmp_path / "corpora" / "world" / "chroma", encoder.id) as store:
        row = sorted(store.rows())[0]
        store.upsert([row], -store.vectors([row]), ["x"], ["x"])
    with pytest.raises(RetrievalError, match="vectors are others"):
        open_corpus("world", tmp_path, encoder)
    encoder.seen.clear()
    assert build_corpus(world, "world", tmp_path, encoder).embedded == len(world)
    assert open_corpus("world", tmp_path, encoder).search_sync("Ann Lee", 3) == right


def test_a_corpus_without_seals_is_searched(world: list[Passage], tmp_path: Path) -> None:
    """Those that were built before corpora had any."""
    build_corpus(world, "world", tmp_path, "hash:64")
    file = tmp_path / "corpora" / "world" / "manifest.json"
    record = json.loads(file.read_text())
    del record["files"], record["vectors"]
    file.write_text(json.dumps(record))
    assert open_corpus("world", tmp_path).search_sync("Ann Lee", 1)[0].title == "Ann Lee"
