import pytest

from jade_graph import plugins
from jade_graph.cli import bench
from jade_graph.errors import PluginError, UsageError


def run(*, size: int = 3, rate: float = 0.5, quick: bool = False, model: str = "tiny", seed: int | None = None):
    """Figures that tell what was asked for."""
    return {"size": size, "rate": rate, "quick": quick, "model": len(model), "seed": -1 if seed is None else seed}


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(plugins, "load", lambda group, name: run)


def test_the_object_has_a_name_figures_and_a_manifest(jade, measured):
    done = jade("bench", "toy", "size=4", "rate=.25", "quick=true", "--json")
    assert done.code == 0
    assert set(done.json) == {"name", "figures", "manifest"}
    assert done.json["figures"] == {"size": 4, "rate": 0.25, "quick": True, "model": 4, "seed": -1}
    assert done.json["manifest"]["options"] == {"size": 4, "rate": 0.25, "quick": True}
    assert done.json["manifest"]["benchmark"] == "toy"


def test_for_people_it_is_a_table(jade, measured):
    done = jade("bench", "toy", "seed=7")
    assert "toy" in done.out
    assert done.out.split().count("7") == 1
    assert done.err == "measuring toy ..\n"
    assert jade("bench", "toy", "--quiet").err == ""


def test_without_a_name_it_lists_what_there_is(jade):
    listed = {each["name"] for each in jade("bench", "--json").json["benchmarks"]}
    assert listed == set(plugins.names("jade.benchmarks"))
    assert all(name in jade("bench").out for name in listed)


def test_all_of_them(jade, measured, monkeypatch):
    monkeypatch.setattr(plugins, "names", lambda group: ["one", "two"])
    assert [each["name"] for each in jade("bench", "--all", "--json").json["benchmarks"]] == ["one", "two"]
    assert "one" in jade("bench", "--all").out


@pytest.mark.parametrize("option", ["sizes=3", "size", "size=x", "quick=maybe", "rate=fast"])
def test_wrong_options(jade, measured, option):
    done = jade("bench", "toy", option, "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == "BENCH_OPTION"


def test_options_are_typed_by_the_functions_annotations():
    given = bench.parse_options("toy", run, ["seed=none", "--size=2", "model=a=b"])
    assert given == {"seed": None, "size": 2, "model": "a=b"}
    with pytest.raises(UsageError) as caught:
        bench.parse_options("toy", run, ["nope=1"])
    assert "rate=0.5" in caught.value.known


@pytest.mark.parametrize("figures", [None, {"a b": 1}, {"a": "1"}, {1: 2}, [1.0]])
def test_figures_that_are_no_numbers_are_the_benchmarks_fault(figures):
    with pytest.raises(PluginError, match="BENCH_FIGURES"):
        bench.check_figures("toy", figures)


def test_an_unknown_benchmark(jade):
    assert jade("bench", "nope", "--json").json["error"]["code"] == "UNKNOWN_BENCHMARK"
