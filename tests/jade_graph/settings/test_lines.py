"""Files of JSON lines: whole or not there, or growing and gone on with."""

import pytest

from jade_graph.errors import ConfigError
from jade_graph.settings.lines import Growing, write_whole


def refuse(before):
    return ConfigError(f"made with {dict(before)}", code="OTHER")


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    assert write_whole(path, ["1", "2"]) == 2
    assert path.read_text() == "1\n2\n"

    def broken():
        yield "3"
        raise ValueError

    with pytest.raises(ValueError):
        write_whole(path, broken())
    assert path.read_text() == "1\n2\n"


def test_rows_are_gone_on_with_behind_one_that_was_cut_off(tmp_path):
    path = tmp_path / "rows.jsonl"
    Growing(path, {"seed": 1}, refuse).add({"x": "a\u2028b"})
    with path.open("a") as file:
        file.write('{"x": 2')
    again = Growing(path, {"seed": 1}, refuse)
    assert again.rows == [{"x": "a\u2028b"}]
    again.add({"x": 3})
    assert Growing(path, {"seed": 1}, refuse).rows == [{"x": "a\u2028b"}, {"x": 3}]


@pytest.mark.parametrize("holds", ['{"seed": 2}\n{"x": 1}\n', "notes of somebody else", "[1]\n"])
def test_a_file_of_anything_else_is_refused_and_stays(tmp_path, holds):
    path = tmp_path / "rows.jsonl"
    path.write_text(holds)
    with pytest.raises(ConfigError, match="OTHER"):
        Growing(path, {"seed": 1}, refuse)
    assert path.read_text() == holds


def test_without_a_path_rows_are_in_memory():
    kept = Growing(None, {}, refuse)
    kept.add({"x": 1})
    assert kept.rows == [{"x": 1}]
