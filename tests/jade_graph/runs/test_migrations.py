"""Older stores are brought to today's schema, once, with what is in them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jade_graph.errors import StoreError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs import feedback, migrations, tables
from jade_graph.runs.feedback import Feedback
from jade_graph.runs.store import RunStore

# The schema of the first store, as SQLite has it written down.
OLD = """
CREATE TABLE jade_store ("key" VARCHAR(40) NOT NULL, value VARCHAR(200) NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE runs (
  id VARCHAR(64) NOT NULL, attempt INTEGER NOT NULL, question TEXT NOT NULL, question_id VARCHAR(200) NOT NULL,
  preset VARCHAR(80) NOT NULL, seed BIGINT NOT NULL, status VARCHAR(16) NOT NULL, answer TEXT NOT NULL,
  error VARCHAR(80), error_message TEXT NOT NULL, "plan" VARCHAR(200) NOT NULL, rounds INTEGER NOT NULL,
  sub_questions INTEGER NOT NULL, retrievals INTEGER NOT NULL, calls INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
  action_tokens INTEGER NOT NULL, illegal_actions INTEGER NOT NULL, backbone_version VARCHAR(200) NOT NULL,
  graph_hash VARCHAR(64) NOT NULL, corpus_id VARCHAR(200) NOT NULL, started_at FLOAT NOT NULL, wall_ms FLOAT NOT NULL,
  metadata TEXT NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_runs_question_id ON runs (question_id);
CREATE INDEX ix_runs_preset ON runs (preset);
CREATE INDEX ix_runs_status ON runs (status);
CREATE INDEX ix_runs_started_at ON runs (started_at);
CREATE TABLE trace_nodes (
  run_id VARCHAR(64) NOT NULL, attempt INTEGER NOT NULL, id VARCHAR(200) NOT NULL, question TEXT NOT NULL,
  parent VARCHAR(200), depth INTEGER NOT NULL, status VARCHAR(16) NOT NULL, resolved TEXT NOT NULL,
  answer TEXT NOT NULL, "plan" VARCHAR(200) NOT NULL, "order" VARCHAR(16), children TEXT NOT NULL, error VARCHAR(80),
  PRIMARY KEY (run_id, attempt, id));
CREATE TABLE transitions (
  run_id VARCHAR(64) NOT NULL, attempt INTEGER NOT NULL, seq INTEGER NOT NULL, schema_version INTEGER NOT NULL,
  question_id VARCHAR(200) NOT NULL, round INTEGER NOT NULL, step INTEGER NOT NULL, depth INTEGER NOT NULL,
  node VARCHAR(40) NOT NULL, trace_node VARCHAR(200) NOT NULL, role VARCHAR(40) NOT NULL,
  agent_trainable BOOLEAN NOT NULL, "plan" VARCHAR(200) NOT NULL, prompt_messages TEXT NOT NULL,
  prompt_token_ids BLOB NOT NULL, action_text TEXT NOT NULL, action_token_ids BLOB NOT NULL,
  old_logprobs BLOB NOT NULL, sampling TEXT NOT NULL, finish_reason VARCHAR(16) NOT NULL, truncated BOOLEAN NOT NULL,
  prompt_cut BOOLEAN NOT NULL, parsed TEXT NOT NULL, valid BOOLEAN NOT NULL, violation VARCHAR(80),
  fallback_used BOOLEAN NOT NULL, rewards TEXT NOT NULL, reward FLOAT, value FLOAT, advantage FLOAT, "return" FLOAT,
  done BOOLEAN NOT NULL, counters_before TEXT NOT NULL, counters_after TEXT NOT NULL, started_ms FLOAT NOT NULL,
  latency_ms FLOAT NOT NULL, queue_ms FLOAT NOT NULL, backbone_version VARCHAR(200) NOT NULL,
  graph_hash VARCHAR(64) NOT NULL, corpus_id VARCHAR(200) NOT NULL, error VARCHAR(80),
  PRIMARY KEY (run_id, attempt, seq));
INSERT INTO jade_store VALUES ('schema_version', '1');
"""


@pytest.fixture
def recorded(tmp_path: Path, scripted: Any, passages: Any) -> Any:
    """A run, and the file of a new store that has it."""
    with RunStore(tmp_path / "new.db") as store:
        graph = JadeGraph(scripted(PL="<workflow>R,AG</workflow>"), retriever=passages, recorder=store)
        run = graph.run("Who wrote Dune?")
    return run, tmp_path / "new.db"


@pytest.fixture
def old(tmp_path: Path, recorded: Any) -> Path:
    """A store of the first schema that holds the run."""
    file = tmp_path / "old.db"
    with sqlite3.connect(file) as db:
        db.executescript(OLD)
        db.execute("ATTACH ? AS new", (str(recorded[1]),))
        for table in ("runs", "trace_nodes", "transitions"):
            db.execute(f"INSERT INTO {table} SELECT * FROM new.{table}")
    db.close()
    return file


def _differences(engine: sa.Engine) -> list[Any]:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with engine.connect() as db:
        context = MigrationContext.configure(db, opts={"version_table": migrations.VERSION_TABLE, "compare_type": True})
        return list(compare_metadata(context, tables.metadata))


def test_an_old_store_is_brought_up_to_date_with_what_is_in_it(old: Path, recorded: Any) -> None:
    run, _ = recorded
    with RunStore(old) as store:
        assert store.get(run.id) == run
        assert _differences(store.engine) == []
        feedback.add(store.engine, Feedback(run.id, rating=1.0))  # a table that the first schema lacked
        assert store.get(run.id).metadata["feedback"]["count"] == 1
    with sqlite3.connect(old) as db:
        assert db.execute(f"SELECT version_num FROM {migrations.VERSION_TABLE}").fetchall() == [(migrations.HEAD,)]
    db.close()


def test_a_new_store_has_the_schema_that_migrations_lead_to(recorded: Any) -> None:
    with RunStore(recorded[1]) as store:
        assert _differences(store.engine) == []


def test_every_revision_has_its_file() -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    found = [script.revision for script in scripts.walk_revisions()]
    assert list(reversed(found)) == list(migrations.REVISIONS)


def test_a_store_without_a_revision_that_has_later_tables(old: Path, recorded: Any) -> None:
    with sqlite3.connect(old) as db:
        db.execute("CREATE TABLE rollouts (id VARCHAR(200) PRIMARY KEY NOT NULL, started_at FLOAT NOT NULL,"
                   " manifest TEXT NOT NULL)")  # fmt: skip
        db.execute("INSERT INTO rollouts VALUES ('mine', 1.0, '{}')")
    db.close()
    with RunStore(old) as store, store.engine.connect() as db2:
        assert db2.execute(sa.select(tables.rollouts.c.id)).scalars().all() == ["mine"]
        assert _differences(store.engine) == []


def test_a_store_of_a_later_revision_is_refused_and_left_alone(recorded: Any) -> None:
    _, file = recorded
    with sqlite3.connect(file) as db:
        db.execute(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")
    db.close()
    before = file.read_bytes()
    with pytest.raises(StoreError, match="9999") as told:
        RunStore(file)
    assert told.value.error_code == "STORE_SCHEMA"
    assert file.read_bytes() == before


def test_a_migration_that_fails_leaves_the_store_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = migrations._upgrade

    def dies(db: sa.Connection, found: str) -> None:
        real(db, found)
        assert sa.inspect(db).has_table("judgements")
        raise sa.exc.OperationalError("COMMIT", {}, Exception("no room"))

    monkeypatch.setattr(migrations, "_upgrade", dies)
    with sqlite3.connect(old) as db:
        before = db.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    with pytest.raises(StoreError, match="STORE_OPEN"):
        RunStore(old)
    with sqlite3.connect(old) as db:
        assert db.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall() == before
    db.close()


def test_processes_that_open_an_old_store_at_once(old: Path, recorded: Any) -> None:
    """None fails, none carries a migration out twice, and all read the run."""
    run, _ = recorded
    code = (
        "import sys; from jade_graph.runs.store import RunStore\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "with RunStore(sys.argv[1]) as store: print(store.count())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(old)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for each in started:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in started:  # all are past their imports: now at once
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in started:
        assert each.stdout is not None
        assert each.communicate()[0] == "1\n"
        assert each.returncode == 0
    with RunStore(old) as store:
        assert store.get(run.id) == run
        assert _differences(store.engine) == []


def test_a_store_that_needs_nothing_is_opened_without_alembic(recorded: Any) -> None:
    code = "import sys; from jade_graph.runs.store import RunStore\n"
    code += "RunStore(sys.argv[1]).close(); sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(recorded[1])], check=True)


def test_postgresql(postgres_url: str) -> None:
    """The same on PostgreSQL: from the first schema, and from nothing."""
    url = sa.make_url(postgres_url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url)
    with engine.begin() as db:
        db.exec_driver_sql("CREATE SCHEMA old")
    old_url = url.update_query_dict({"options": "-csearch_path=old"})
    first = sa.create_engine(old_url)
    with first.begin() as db:
        for statement in OLD.replace("BLOB", "BYTEA").replace("FLOAT", "FLOAT(53)").split(";"):
            if statement.strip():
                db.exec_driver_sql(statement)
    with RunStore(old_url.render_as_string(hide_password=False)) as store:
        assert store.count() == 0
        assert _differences(store.engine) == []
    with engine.begin() as db:
        db.exec_driver_sql("CREATE SCHEMA fresh")
    fresh = url.update_query_dict({"options": "-csearch_path=fresh"})
    with RunStore(fresh.render_as_string(hide_password=False)) as store:
        assert _differences(store.engine) == []
    first.dispose()
    engine.dispose()
