"""Where a registry is: a local database is there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from jade_graph.registry.place import Place

utils = pytest.importorskip("mlflow.store.db.utils")


def test_a_database_that_was_cut_off_while_it_was_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlalchemy as sa

    def cut(engine: sa.Engine) -> None:
        with engine.begin() as db:
            db.execute(sa.text("create table model_versions (half int)"))
        raise KeyboardInterrupt

    file = tmp_path / "mlflow.db"
    with monkeypatch.context() as killed:
        killed.setattr(utils, "_initialize_tables", cut)
        with pytest.raises(KeyboardInterrupt):
            _ = Place.find(f"sqlite:///{file}", tmp_path).client
    assert not file.exists()
    place = Place.find(f"sqlite:///{file}", tmp_path)
    assert not place.made
    assert place.client.search_registered_models() == []
    assert file.is_file()
    assert not (tmp_path / "mlflow.db.making").exists()
    assert file.stat().st_mode & 0o077 == 0
