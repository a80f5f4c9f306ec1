from jade_graph.microworld import BEST_PLAN, KINDS

SMALL = "test?scale=0.2&n=14"


def test_a_world_and_a_question_of_every_kind(jade):
    shown = jade("microworld", "show", SMALL, "--json").json
    assert sorted(q["kind"] for q in shown["questions"]) == sorted(KINDS)
    assert all(q["answers"] for q in shown["questions"])
    assert all(q["plan"] == BEST_PLAN[q["kind"]] for q in shown["questions"])
    assert shown["passages"] > 500
    again = jade("microworld", "show", SMALL, "--json").json
    assert again == shown


def test_for_people_with_the_passages_that_hold_the_answer(jade):
    text = jade("microworld", "show", SMALL).out
    assert all(kind in text for kind in KINDS)
    assert len(jade("microworld", "show", SMALL, "--passages").out) > len(text)


def test_the_oracle_carries_out_every_plan_and_routing_beats_each(jade):
    found = jade("microworld", "plans", SMALL, "--json").json
    assert set(found["route"]) == set(KINDS)
    assert found["routed"]["f1"] >= max(cell["f1"] for cell in found["fixed"].values())
    assert found["manifest"]["questions"] == 14
    assert "routed" in jade("microworld", "plans", SMALL).out


def test_wrong_worlds_are_named(jade):
    assert jade("microworld", "show", "tset", "--json").json["error"]["code"] == "MICROWORLD_SPLIT"
    assert jade("microworld", "plans", "test?nn=3", "--json").json["error"]["code"] == "UNKNOWN_MICROWORLD_OPTION"
