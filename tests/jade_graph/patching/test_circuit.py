"""Against the compiled circuit: every figure here is known from its construction."""

from __future__ import annotations

import pytest
import torch

from jade_graph.errors import UsageError
from jade_graph.patching import Pair, Site, cost, look, make_pair
from jade_graph.patching.passes import Model, Passes, Patch
from jade_graph.patching.recovery import EMBEDDING, cells, recovery

from .conftest import ANS, NO, SEP, YES, document, query

PLACES = ("sep", "query", "before", "match", "behind")


def prompt(asked: int, *found: int) -> list[int]:
    return [SEP, query(asked), *map(document, found), ANS]


def pair(clean: list[int], corrupt: list[int]) -> Pair:
    return make_pair(clean, corrupt, [YES], [NO], {name: [i] for i, name in enumerate(PLACES)})


BY_DOCUMENT = pair(prompt(1, 0, 1, 2), prompt(1, 0, 3, 2))
BY_QUERY = pair(prompt(1, 0, 1, 2), prompt(4, 0, 1, 2))


def heads(found) -> dict[str, float]:
    return {f"L{c.site.layer}H{c.site.group}": c.recovery for c in found.cells if c.site.kind == "head"}


def residual(found, layer: int) -> dict[str, float]:
    return {c.site.group: c.recovery for c in found.cells if c.site.kind == "resid" and c.site.layer == layer}


def test_the_planted_head_gives_all_back_and_no_other_gives_any(planted):
    found = look(planted, [BY_DOCUMENT])
    assert found.clean[0] == pytest.approx(3.0, abs=1e-4)
    assert found.corrupt[0] == pytest.approx(0.0, abs=1e-4)
    wanted = {f"L{layer}H{head}": float((layer, head) == (1, 2)) for layer in (0, 1) for head in range(4)}
    assert heads(found) == pytest.approx(wanted, abs=1e-4)
    assert found.heads_by_recovery()[0].site == Site("head", 1, "2")


def test_the_residual_stream_shows_where_the_document_is_known(planted):
    found = look(planted, [BY_DOCUMENT])
    nothing = dict.fromkeys((*PLACES, "last"), 0.0)
    assert residual(found, EMBEDDING) == pytest.approx(nothing | {"match": 1.0}, abs=1e-4)
    assert residual(found, 0) == pytest.approx(nothing | {"match": 1.0}, abs=1e-4)
    assert residual(found, 1) == pytest.approx(nothing | {"last": 1.0}, abs=1e-4)


def test_of_a_swapped_query_the_copying_head_is_found_too(planted):
    found = look(planted, [BY_QUERY])
    wanted = {f"L{layer}H{head}": float((layer, head) in ((0, 0), (1, 2))) for layer in (0, 1) for head in range(4)}
    assert heads(found) == pytest.approx(wanted, abs=1e-4)
    assert [residual(found, layer)["query"] for layer in (EMBEDDING, 0, 1)] == pytest.approx([1, 0, 0], abs=1e-4)
    assert [residual(found, layer)["last"] for layer in (EMBEDDING, 0, 1)] == pytest.approx([0, 1, 1], abs=1e-4)


def test_a_site_that_gives_twice_is_told_as_2_and_one_that_takes_as_minus_1(twice):
    found = look(twice, [BY_QUERY])
    assert found.clean[0] == pytest.approx(3.0, abs=1e-4)
    told = heads(found)
    assert told["L0H0"] == pytest.approx(2.0, abs=1e-4)
    assert told["L1H2"] == pytest.approx(2.0, abs=1e-4)
    assert told["L0H1"] == pytest.approx(-1.0, abs=1e-4)
    assert told["L1H3"] == pytest.approx(-1.0, abs=1e-4)
    assert all(abs(told[name]) < 1e-4 for name in ("L0H2", "L0H3", "L1H0", "L1H1"))


@pytest.mark.parametrize("shortcuts", [True, False])
@pytest.mark.parametrize("layer", [EMBEDDING, 0, 1])
def test_everything_patched_is_the_clean_run_and_the_own_activations_change_nothing(planted, shortcuts, layer):
    passes = Passes(Model(planted), BY_QUERY, shortcuts=shortcuts)
    clean, corrupt = [], []
    (high,), (low,) = passes.difference(BY_QUERY.clean, sink=clean), passes.difference(BY_QUERY.corrupt, sink=corrupt)
    whole = Patch(0, "resid", tuple(range(passes.offset, 6)))
    patched = [
        passes.difference(BY_QUERY.corrupt, layer=layer, patches=[whole], source=source)[0]
        for source in (clean, corrupt)
    ]
    assert [recovery([value], [high], [low]) for value in patched] == pytest.approx([1.0, 0.0], abs=1e-5)
    found = look(planted, [BY_QUERY])
    assert (found.own, found.whole) == pytest.approx((0.0, 1.0), abs=1e-5)


def test_recovery_is_the_formula_over_pairs_and_is_never_clipped():
    assert recovery([5.0, 7.0], [2.0, 4.0], [1.0, 1.0]) == pytest.approx((6 - 1) / (3 - 1))
    assert recovery([-1.0], [2.0], [1.0]) == pytest.approx(-2.0)
    with pytest.raises(UsageError) as caught:
        recovery([1.0], [2.0], [2.0])
    assert caught.value.error_code == "LOOK_SAME"


def test_intervals_hold_the_mean_and_shrink_to_it_where_all_pairs_agree():
    site, other = Site("resid", 0, "a"), Site("resid", 0, "b")
    clean, corrupt = [2.0, 4.0, 3.0, 5.0], [0.0, 1.0, 0.5, 1.0]
    half = [low + (high - low) / 2 for high, low in zip(clean, corrupt, strict=True)]
    (one, two) = cells({site: half, other: [2.0, 1.0, 0.5, 1.0]}, clean, corrupt)
    assert (one.recovery, one.low, one.high) == pytest.approx((0.5, 0.5, 0.5))
    assert two.low < two.recovery < two.high
    assert two.recovery == pytest.approx((1.125 - 0.625) / (3.5 - 0.625))


def test_several_pairs_are_one_ratio_of_means(planted):
    found = look(planted, [BY_DOCUMENT, BY_QUERY])
    # The copying head gives all of one pair back, nothing of the other; both differences are 3.
    assert found.value("head", 0, 0) == pytest.approx(0.5, abs=1e-4)
    assert found.value("head", 1, 2) == pytest.approx(1.0, abs=1e-4)
    assert next(c for c in found.cells if c.site == Site("head", 1, "2")).low == pytest.approx(1.0, abs=1e-4)


def test_what_cannot_be_compared_is_a_typed_error(planted):
    ids = prompt(1, 0, 1, 2)
    for made, code in (
        (lambda: make_pair(ids, ids[:-1], [YES], [NO], {}), "LOOK_LENGTHS"),
        (lambda: make_pair(ids, ids, [YES], [NO], {}), "LOOK_SAME"),
        (lambda: make_pair(ids, prompt(2, 0, 1, 2), [YES], [YES, NO], {}), "LOOK_CHOICE"),
        # Other tokens, and the same decision: no document of either matches.
        (lambda: look(planted, [pair(prompt(1, 0, 2, 3), prompt(1, 0, 4, 3))]), "LOOK_SAME"),
        (lambda: look(planted, []), "LOOK_SAME"),
        (lambda: look(planted, [BY_QUERY], sites=("heads",)), "LOOK_SITES"),
        (lambda: look(torch.nn.Linear(2, 2), [BY_QUERY]), "LOOK_ARCHITECTURE"),
    ):
        with pytest.raises(UsageError) as caught:
            made()
        assert caught.value.error_code == code


def test_the_model_is_left_as_it_was(planted):
    before = {name: w.clone() for name, w in planted.state_dict().items()}
    look(planted, [BY_QUERY])
    assert all(torch.equal(w, before[name]) for name, w in planted.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in planted.modules())


def test_the_cost_is_known_before_and_batches_are_as_many(planted):
    told = []
    expected = cost(planted, [BY_DOCUMENT])
    look(planted, [BY_DOCUMENT], tick=lambda done, total: told.append((done, total)))
    assert told == [(i + 1, expected.passes) for i in range(3)]
