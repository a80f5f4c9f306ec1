"""Demonstrations in a file, and learned from: what is written is read, whole questions are held out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jade_graph.backbones.codec import Codec
from jade_graph.errors import DataError
from jade_graph.microworld.shown import Shown
from jade_graph.testing.models import make_random_model
from jade_graph.types import Message
from jade_training import offline
from jade_training.learner.ppo import Lora
from jade_training.supervised import files
from jade_training.supervised.sft import learning_rate_for, sft

pytestmark = pytest.mark.usefixtures("one_thread")

SHOWN = [
    Shown(f"q{i}{part}", role, (Message("user", f"{role} : é {i}\n"),), f"<answer>{i % 3}</answer>")
    for i in range(40)
    for part, role in (("", "AG"), (".1", "PL"))
]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    files.write(tmp_path / "new" / "d.jsonl", SHOWN, {"profile": "brief", "k": 3})
    assert files.read(tmp_path / "new" / "d.jsonl") == (SHOWN, {"profile": "brief", "k": 3})
    assert files.by_role(SHOWN) == {"AG": 40, "PL": 40}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("{}\n", 1),
        ('{"manifest": {}}\nnonsense\n', 2),
        ('{"manifest": {}}\n{"role": "AG"}\n', 2),
        ('{"manifest": {}}\n{"question_id": "q", "role": "AG", "action": 3, "messages": []}\n', 2),
        ('{"manifest": {}}\n' + json.dumps({"question_id": "q", "role": "AG", "action": "x", "messages": []}), 2),
        (
            '{"manifest": {}}\n'
            + json.dumps(
                {"question_id": "q", "role": "AG", "action": "x", "messages": [{"role": "tool", "content": "y"}]}
            ),
            2,
        ),
    ],
)
def test_a_line_that_is_none_is_named(text: str, line: int, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(text)
    with pytest.raises(DataError, match=f"line {line}.*") as caught:
        files.read(tmp_path / "d.jsonl")
    assert caught.value.error_code == "DEMONSTRATIONS_FILE"


def test_whole_questions_are_held_out_with_their_parts() -> None:
    learned, kept = files.held_out(SHOWN, 0.25)
    assert len(learned) + len(kept) == len(SHOWN)
    ours, theirs = ({s.question_id.partition(".")[0] for s in some} for some in (learned, kept))
    assert not ours & theirs
    assert 4 <= len(theirs) <= 18
    assert files.held_out(SHOWN, 0.0) == (SHOWN, [])


def test_pairs_are_what_the_engine_gives_the_model(folder: Path) -> None:
    codec = Codec.from_folder(folder, profile="brief")
    (prompt, action), *_ = files.pairs(codec, SHOWN)
    assert prompt == codec.encode(SHOWN[0].messages)
    assert codec.decode(action) == SHOWN[0].action
    assert action[-1] == codec.eos_token_id


def test_a_file_teaches_adapters_that_are_merged_and_kept(folder: Path, tmp_path: Path) -> None:
    files.write(tmp_path / "d.jsonl", SHOWN, {"profile": "brief"})
    found = offline.from_file(tmp_path / "d.jsonl", folder, share=0.2)
    assert found.profile == "brief"
    assert set(found.held_out) == {"AG", "PL"}
    steps: list[tuple[int, int]] = []
    out = tmp_path / "out"
    metrics = sft(
        folder, found.pairs, out, lora=Lora(8, 16), epochs=25, batch_rows=8, micro_tokens=256, learning_rate=1e-2,
        held_out=found.held_out, profile=found.profile, progress=lambda done, all_: steps.append((done, all_)),
        device="cpu",
    )  # fmt: skip
    assert metrics["held_out AG"] < 0.6 * metrics["held_out AG before"]
    assert steps[-1] == (metrics["steps"], metrics["steps"])
    assert json.loads((out / "jade.json").read_text())["profile"] == "brief"
    assert Codec.from_folder(out).profile == "brief"
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    assert not list(out.rglob("*.bin"))


def test_the_same_seed_gives_the_same_adapters(tmp_path: Path) -> None:
    start = make_random_model(tmp_path / "start", width=16, heads=2)
    files.write(tmp_path / "d.jsonl", SHOWN, {"profile": "brief"})
    found = offline.from_file(tmp_path / "d.jsonl", start, share=0.0)
    for name in ("a", "b"):
        sft(start, found.pairs, tmp_path / name, lora=Lora(2, 4), steps=3, batch_rows=8, micro_tokens=200, device="cpu")
    one, two = ((tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("a", "b"))
    assert one == two


def test_the_rate_falls_with_the_size_of_the_model() -> None:
    assert learning_rate_for(1_300_000, lora=False) == 5e-4
    assert learning_rate_for(135_000_000, lora=False) == pytest.approx(7.45e-5, rel=0.01)
    assert learning_rate_for(135_000_000, lora=True) == pytest.approx(4e-4)
    assert learning_rate_for(7_000_000_000, lora=True) == pytest.approx(1.49e-4, rel=0.01)
