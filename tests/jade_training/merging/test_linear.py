"""Linear combinations: exact, whatever the order of the parents, and refused where names or shapes differ."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from jade_graph.errors import BackboneError, UsageError
from jade_training.merging.linear import Writer, combine, merge_files, stored

KINDS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def _state(seed, kind=torch.float32, **more):
    g = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(5, 3, generator=g).to(kind),
        "b.bias": torch.randn(4, generator=g).to(kind),
        "scalar": torch.randn((), generator=g).to(kind),
        "empty": torch.empty(0, 3, dtype=kind),
        **more,
    }


def _files(tmp_path, states):
    out = []
    for i, state in enumerate(states):
        save_file(state, tmp_path / f"{i}.safetensors", {"format": "pt"})
        out.append([tmp_path / f"{i}.safetensors"])
    return out


def _names(parents):
    return [hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest() for files in parents]


def _bits(state):
    return {name: t.contiguous().reshape(-1).view(torch.uint8).tolist() for name, t in state.items()}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_one_parent_comes_out_as_it_went_in(tmp_path, kind):
    state = _state(0, kind, odd=torch.tensor([-0.0, float("inf"), 1e-40]).to(kind))
    assert _bits(combine([state], [1.0])) == _bits(state)
    merge_files(_files(tmp_path, [state]), ["x"], [1.0], tmp_path / "out.safetensors")
    assert _bits(load_file(tmp_path / "out.safetensors")) == _bits(state)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_files_and_memory_give_the_same_mean(tmp_path, kind):
    states, weigh = [_state(i, kind) for i in range(3)], [0.5, 0.3, 0.2]
    parents = _files(tmp_path, states)
    merge_files(parents, _names(parents), weigh, tmp_path / "out.safetensors")
    found, exact = load_file(tmp_path / "out.safetensors"), combine(states, weigh)
    for name, tensor in found.items():
        wide = sum(c * s[name].double() for c, s in zip(weigh, states, strict=True))
        assert tensor.dtype == kind
        torch.testing.assert_close(tensor.double(), wide, rtol=torch.finfo(kind).eps, atol=1e-7)
        torch.testing.assert_close(tensor, exact[name], rtol=torch.finfo(kind).eps, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.data())
def test_the_order_of_the_parents_changes_no_bit(seeds, data):
    states = [_state(seed) for seed in seeds]
    raw = data.draw(st.lists(st.floats(0.01, 1.0), min_size=len(seeds), max_size=len(seeds)))
    weigh = [w / sum(raw) for w in raw]
    order = data.draw(st.permutations(range(len(seeds))))
    before = combine(states, weigh)
    after = combine([states[i] for i in order], [weigh[i] for i in order])
    assert _bits(before) == _bits(after)


def test_the_order_of_the_parents_changes_no_byte_of_the_file(tmp_path):
    parents = _files(tmp_path, [_state(i, torch.bfloat16) for i in range(4)])
    names, weigh, seen = _names(parents), [0.4, 0.3, 0.2, 0.1], set()
    for order in itertools.permutations(range(4)):
        out = tmp_path / "out.safetensors"
        merge_files([parents[i] for i in order], [names[i] for i in order], [weigh[i] for i in order], out)
        seen.add(out.read_bytes())
    assert len(seen) == 1


def test_a_model_in_several_files_is_the_model_in_one(tmp_path):
    states = [_state(i) for i in range(2)]
    whole = _files(tmp_path, states)
    parts = []
    for i, state in enumerate(states):
        paths = [tmp_path / f"{i}-{part}.safetensors" for part in (0, 1)]
        save_file({"a.weight": state["a.weight"]}, paths[0])
        save_file({k: v for k, v in state.items() if k != "a.weight"}, paths[1])
        parts.append(paths)
    merge_files(whole, ["x", "y"], [0.5, 0.5], tmp_path / "whole.safetensors")
    merge_files(parts, ["x", "y"], [0.5, 0.5], tmp_path / "parts.safetensors")
    assert (tmp_path / "whole.safetensors").read_bytes() == (tmp_path / "parts.safetensors").read_bytes()


def test_integers_are_left_as_they_are(tmp_path):
    table = torch.arange(6)
    states = [_state(i, table=table, steps=torch.tensor(10 * i)) for i in range(3)]
    found = combine(states, [0.2, 0.5, 0.3])
    assert torch.equal(found["table"], table)
    assert int(found["steps"]) == 10  # of the parent that weighs most
    parents = _files(tmp_path, states)
    merge_files(parents, _names(parents), [0.2, 0.5, 0.3], tmp_path / "out.safetensors")
    read = load_file(tmp_path / "out.safetensors")
    assert (read["table"].tolist(), int(read["steps"])) == (table.tolist(), 10)


def test_quantised_weights_are_not_averaged():
    states = [_state(i, packed=torch.arange(6) + i) for i in range(2)]
    with pytest.raises(UsageError) as error:
        combine(states, [0.5, 0.5])
    assert error.value.error_code == "MERGE_DIFFERS"
    assert "'packed'" in error.value.message


def test_tied_weights_are_combined_once_and_stay_tied():
    states = []
    for i in range(2):
        state = _state(i)
        states.append({**state, "head": state["a.weight"]})
    found = combine(states, [0.5, 0.5])
    assert found["head"].data_ptr() == found["a.weight"].data_ptr()
    # What one parent ties and the other does not is two tensors.
    loose = combine([states[0], {**states[1], "head": states[1]["head"].clone()}], [0.5, 0.5])
    assert loose["head"].data_ptr() != loose["a.weight"].data_ptr()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.pop("b.bias"), "'b.bias'"),
        (lambda s: s.update({"more": torch.zeros(1)}), "'more'"),
        (lambda s: s.update({"a.weight": torch.zeros(3, 5)}), "[5, 3]"),
    ],
)
def test_other_names_or_shapes_are_refused(tmp_path, change, named):
    states = [_state(0), _state(1)]
    change(states[1])
    with pytest.raises(UsageError) as error:
        combine(states, [0.5, 0.5])
    assert error.value.error_code == "MERGE_DIFFERS"
    assert named in error.value.message
    parents = _files(tmp_path, states)
    with pytest.raises(UsageError) as error:
        merge_files(parents, ["x", "y"], [0.5, 0.5], tmp_path / "out.safetensors")
    assert error.value.error_code == "MERGE_DIFFERS"
    assert not (tmp_path / "out.safetensors").exists()


def test_formats_that_differ_give_the_wider(tmp_path):
    states = [_state(0, torch.bfloat16), _state(1, torch.float16), _state(2, torch.float32)]
    parents = _files(tmp_path, states)
    merge_files(parents[:2], ["x", "y"], [0.5, 0.5], tmp_path / "halves.safetensors")
    assert load_file(tmp_path / "halves.safetensors")["a.weight"].dtype == torch.float32
    merge_files(parents[::2], ["x", "y"], [0.5, 0.5], tmp_path / "wide.safetensors")
    assert load_file(tmp_path / "wide.safetensors")["a.weight"].dtype == torch.float32


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b[:5], lambda b: b"PK" + b[2:], lambda b: b""])
def test_what_is_no_safetensors_is_told_before_anything_is_written(tmp_path, damage):
    parents = _files(tmp_path, [_state(0), _state(1)])
    parents[1][0].write_bytes(damage(parents[1][0].read_bytes()))
    with pytest.raises(BackboneError) as error:
        merge_files(parents, ["x", "y"], [0.5, 0.5], tmp_path / "out.safetensors")
    assert error.value.error_code == "WEIGHTS_TRUNCATED"
    assert not (tmp_path / "out.safetensors").exists()


def test_nothing_and_a_wrong_number_are_refused():
    for states, weigh, code in (([], [], "MERGE_EMPTY"), ([_state(0)], [0.5, 0.5], "MERGE_COUNT")):
        with pytest.raises(UsageError) as error:
            combine(states, weigh)
        assert error.value.error_code == code


def test_the_memory_is_that_of_blocks_not_of_models(tmp_path):
    big = 12_000_000  # numbers: 48 MB in float32
    files = []
    for i in range(3):
        save_file({"w": torch.full((big,), float(i))}, tmp_path / f"{i}.safetensors")
        files.append([tmp_path / f"{i}.safetensors"])
    tracemalloc.start()
    try:
        merge_files(files, ["x", "y", "z"], [0.2, 0.3, 0.5], tmp_path / "out.safetensors")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.3 * 3 * 4 * 2**22  # a block of each parent (the sums are torch's, and no more than two blocks)
    assert float(load_file(tmp_path / "out.safetensors")["w"][-1]) == pytest.approx(1.3)


def test_the_writer_writes_what_the_library_reads(tmp_path):
    state = _state(3, torch.bfloat16, wide=torch.randn(3, dtype=torch.float64), flag=torch.tensor([True, False]))
    save_file(state, tmp_path / "theirs.safetensors", {"format": "pt"})
    found = stored([tmp_path / "theirs.safetensors"])
    with Writer(tmp_path / "ours.safetensors", {n: (p.kind, p.shape) for n, p in found.items()}) as out:
        for name in out.order:
            out.put([state[name]])
    assert _bits(load_file(tmp_path / "ours.safetensors")) == _bits(state)
    head = (tmp_path / "ours.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", head[:8])
    offsets = [v["data_offsets"] for k, v in json.loads(head[8 : 8 + size]).items() if k != "__metadata__"]
    assert (8 + size) % 8 == 0
    assert sorted(offsets)[0][0] == 0
