"""What every test may use: the shared data sets, by path."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parent
_CANDIDATES = (Path(os.environ.get("JADE_SHARED_DATA", "/nonexistent")), _HERE.parents[1] / "shared" / "data")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data("musique_train100")`: the folder of a real data set, which is never copied into the project."""

    def find(name: str) -> Path:
        for base in _CANDIDATES:
            if (base / name).is_dir():
                return base / name
        pytest.skip(f"the data set {name} is not beside the checkout (../shared/data, or JADE_SHARED_DATA)")

    return find
