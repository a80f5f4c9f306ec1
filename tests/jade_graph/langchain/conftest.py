"""A PostgreSQL server for the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import MissingError, postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a fresh server on a loopback port; tests are skipped where there is none."""
    try:
        with postgres() as server:
            yield server.url
    except MissingError as error:
        pytest.skip(str(error))
