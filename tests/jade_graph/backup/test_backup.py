"""A backup is whole although others write, and what comes of it is what was there."""

from __future__ import annotations

import json
import sqlite3
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from jade_graph.backup import back_up, restore
from jade_graph.backup.taking import DATA, MANIFEST
from jade_graph.errors import JadeError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.retrieval.lock import write_lock
from jade_graph.runs.store import RunStore
from jade_graph.settings.config import load_config
from jade_graph.settings.fields import Settings
from jade_graph.types import Question


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a data folder with a file of a corpus, a model of the user's, a fetched one, a lock and a derived version."""
    data = tmp_path / "data"
    for name, text in (
        ("corpora/notes/manifest.json", "{}"), ("corpora/notes/.lock", ""), ("models/mine/config.json", "mine"),
        ("models/smol/config.json", "fetched"), ("versions/abc/model/w", "derived"), ("registry.lock", ""),
        ("mlflow/1/artifact.bin", "weights"),
    ):  # fmt: skip
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(text)
    return load_config(overrides=[f"data_dir={data}"]).settings


def _graph(scripted: Any, passages: Any, store: RunStore) -> JadeGraph:
    return JadeGraph(scripted(PL="<workflow>R,AG</workflow>"), retriever=passages, recorder=store)


def test_what_was_there_comes_back(settings: Settings, tmp_path: Path, scripted: Any, passages: Any) -> None:
    with RunStore(settings.store_url) as store:
        run = _graph(scripted, passages, store).run("Who wrote Dune?")
    done = back_up(settings, tmp_path / "b.tar")
    assert [each.partition(":")[0] for each in done.left_out] == ["the model smol"]
    restored = restore(tmp_path / "b.tar", tmp_path / "elsewhere" / "data")
    found = {p.relative_to(restored.folder).as_posix() for p in restored.folder.rglob("*") if p.is_file()}
    assert found == {"runs.db", "corpora/notes/manifest.json", "models/mine/config.json", "mlflow/1/artifact.bin"}
    assert (restored.folder / "mlflow/1/artifact.bin").read_text() == "weights"
    with RunStore(restored.folder / "runs.db") as store:
        assert store.get(run.id) == run
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    assert restored.folder.stat().st_mode & 0o777 == 0o700
    assert (restored.folder / "mlflow/1/artifact.bin").stat().st_mode & 0o777 == 0o600


def test_models_that_have_a_name_on_request(settings: Settings, tmp_path: Path) -> None:
    done = back_up(settings, tmp_path / "b.tar", models=True)
    assert done.left_out == ()
    assert (restore(tmp_path / "b.tar", tmp_path / "new").folder / "models/smol/config.json").read_text() == "fetched"


def test_while_runs_are_written(settings: Settings, tmp_path: Path, scripted: Any, passages: Any) -> None:
    """Every run of the backup that ended is whole, and nobody was held up."""
    stop, errors = threading.Event(), list[BaseException]()
    with RunStore(settings.store_url) as store:
        graph, enough = _graph(scripted, passages, store), threading.Event()

        def rollout() -> None:
            try:
                for i in range(100_000):
                    graph.run(Question(f"q{i}", f"Who wrote number {i}?"))
                    if i == 5:
                        enough.set()
                    if stop.is_set():
                        return
            except BaseException as error:
                errors.append(error)
            finally:
                enough.set()

        thread = threading.Thread(target=rollout)
        thread.start()
        enough.wait()
        for i in range(5):
            back_up(settings, tmp_path / f"{i}.tar")
        stop.set()
        thread.join()
        assert not errors
        for i in range(5):
            folder = restore(tmp_path / f"{i}.tar", tmp_path / f"r{i}").folder
            with sqlite3.connect(folder / "runs.db") as db:
                assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            db.close()
            with RunStore(folder / "runs.db") as copy:
                runs = list(copy.iter_runs())
                assert len(runs) >= 6
                assert all(run == store.get(run.id) for run in runs)


def test_a_store_elsewhere_is_in_it_and_postgresql_is_named(settings: Settings, tmp_path: Path) -> None:
    RunStore(tmp_path / "apart.db").close()
    other = load_config(
        overrides=[f"data_dir={settings.data_dir}", f"store.url=sqlite:///{tmp_path / 'apart.db'}"]
    ).settings
    back_up(other, tmp_path / "a.tar")
    RunStore(restore(tmp_path / "a.tar", tmp_path / "a").folder / "runs.db").close()
    served = load_config(
        overrides=[f"data_dir={settings.data_dir}", "store.url=postgresql://me:secret@db/x", "registry.url=http://m:1"]
    ).settings
    done = back_up(served, tmp_path / "p.tar")
    told = " ".join(done.left_out)
    assert "pg_dump" in told
    assert "http://m:1" in told
    assert "secret" not in told
    assert restore(tmp_path / "p.tar", tmp_path / "p").left_out == done.left_out


def test_a_corpus_that_is_written_is_waited_for(settings: Settings, tmp_path: Path) -> None:
    corpus, done = settings.data_path / "corpora" / "notes", threading.Event()

    def backup() -> None:
        back_up(settings, tmp_path / "b.tar")
        done.set()

    with write_lock(corpus):
        (corpus / "half").write_text("half")
        thread = threading.Thread(target=backup)
        thread.start()
        while not list(tmp_path.glob(".b.tar.*.part")):  # it has begun
            done.wait(0.01)
        assert not done.is_set()
        (corpus / "half").write_text("the whole of it")
    thread.join()
    assert (restore(tmp_path / "b.tar", tmp_path / "r").folder / "corpora/notes/half").read_text() == "the whole of it"


def _rewritten(source: Path, target: Path, change: Any) -> Path:
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            told = change(member, file.read())
            if told is not None:
                import io

                member, data = told
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
    return target


def _altered(member: tarfile.TarInfo, data: bytes) -> Any:
    return member, data.replace(b"weights", b"weighty")


def _missing(member: tarfile.TarInfo, data: bytes) -> Any:
    return None if "artifact" in member.name else (member, data)


def _outside(member: tarfile.TarInfo, data: bytes) -> Any:
    member.name = member.name.replace(DATA + "mlflow", DATA + "../mlflow")
    return member, data


def _headless(member: tarfile.TarInfo, data: bytes) -> Any:
    return None if member.name == MANIFEST else (member, data)


def _newer(member: tarfile.TarInfo, data: bytes) -> Any:
    return member, json.dumps({**json.loads(data), "schema": 99}).encode() if member.name == MANIFEST else data


@pytest.mark.parametrize(
    ("change", "code"),
    [(_altered, "BACKUP_BROKEN"), (_missing, "BACKUP_BROKEN"), (_outside, "BACKUP_BROKEN"),
     (_headless, "BACKUP_BROKEN"), (_newer, "BACKUP_NEWER")],
)  # fmt: skip
def test_what_is_not_as_it_was_written_is_refused(settings: Settings, tmp_path: Path, change: Any, code: str) -> None:
    back_up(settings, tmp_path / "b.tar")
    with pytest.raises(JadeError) as told:
        restore(_rewritten(tmp_path / "b.tar", tmp_path / "c.tar", change), tmp_path / "r" / "new")
    assert told.value.error_code == code
    assert list((tmp_path / "r").iterdir()) == []


def test_a_file_that_was_cut_off(settings: Settings, tmp_path: Path) -> None:
    back_up(settings, tmp_path / "b.tar")
    whole = (tmp_path / "b.tar").read_bytes()
    for part in (0, 700, 1500, whole.index(b'"schema"') + 20):
        (tmp_path / "cut.tar").write_bytes(whole[:part])
        with pytest.raises(JadeError, match="BACKUP_BROKEN"):
            restore(tmp_path / "cut.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(settings: Settings, tmp_path: Path) -> None:
    back_up(settings, tmp_path / "b.tar")
    with pytest.raises(JadeError, match="BACKUP_EXISTS"):
        back_up(settings, tmp_path / "b.tar")
    with pytest.raises(JadeError, match="RESTORE_EXISTS"):
        restore(tmp_path / "b.tar", settings.data_path)
    with pytest.raises(JadeError, match="BACKUP_FILE"):
        restore(tmp_path / "none.tar", tmp_path / "new")
    empty = load_config(overrides=[f"data_dir={tmp_path / 'nowhere'}"]).settings
    with pytest.raises(JadeError, match="BACKUP_EMPTY"):
        back_up(empty, tmp_path / "c.tar")
    assert not list(tmp_path.glob("*.part"))
