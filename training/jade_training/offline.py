"""Training from what was recorded: one update on an export, or a warm start on demonstrations and good runs.

Invariant: nothing is run and nothing recorded is changed; the weights that come out are a function of the export, the
start and the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph import plugins
from jade_graph.backbones.codec import read_json
from jade_graph.backbones.folders import content_version
from jade_graph.errors import ConfigError, DataError, UsageError
from jade_graph.microworld.shown import Shown
from jade_graph.runs.export import read_export
from jade_graph.runs.export.schema import KIND
from jade_graph.scoring.rewards import RewardSpec, Scored, score_run
from jade_graph.types import Preset, Question, Run
from jade_training.mixing.mixture import Mixture, dataset_of

if TYPE_CHECKING:
    from jade_training.learner.ppo import PPOConfig
    from jade_training.supervised.batches import Pair

CHECKPOINT = "checkpoint"
MICROWORLD = "microworld"


@dataclass(frozen=True, slots=True)
class Material:
    """Runs of an export, what each earned, and the preset that made them."""

    runs: list[Run]
    scored: dict[str, Scored]
    spec: RewardSpec
    preset: Preset


def material(export: Path | str, *, preset: str | None = None, **terms: Any) -> Material:
    """Read an export and score its runs against the gold answers recorded with them.

    Args:
        preset: whose rewards these are; None: that of the runs.
        terms: fields of `RewardSpec` that replace the preset's.

    Raises:
        DataError: those of `read_export`; UsageError: EXPORT_PRESETS (runs of several presets), and for an unknown one.
    """
    runs = read_export(export).runs
    names = sorted({run.preset for run in runs})
    if preset is None and len(names) != 1:
        raise UsageError(
            f"{str(export)!r} holds runs of {len(names)} presets.", code="EXPORT_PRESETS", known=names, hint="--preset"
        )
    found: Preset = plugins.load("jade.presets", preset or names[0])
    spec = RewardSpec.of_preset(found, **terms)
    return Material(runs, {run.id: score_run(run, _asked(run), spec) for run in runs}, spec, found)


def _asked(run: Run) -> Question:
    answers = run.metadata.get("answers")
    golds = tuple(answers) if isinstance(answers, list | tuple) else ()
    return Question(run.question_id, run.question, golds, type=str(run.metadata.get("type") or ""))


def train(
    given: Material,
    start: Path,
    out: Path,
    config: PPOConfig,
    *,
    checkpoint: Path | None = None,
    any_version: bool = False,
    replay: Sequence[Pair] = (),
) -> dict[str, float]:
    """One PPO update on recorded runs. Writes `out`, a Hugging Face folder, and `out/checkpoint` to go on from.

    Args:
        start: the weights that sampled the runs. With a checkpoint: the first start, which stays the reference.
        checkpoint: of the update before.
        any_version: do not compare the version in the runs with that of the weights. Log-probabilities still are.

    Returns:
        the update's metrics.

    Raises:
        UsageError: TRAIN_OUT, `out` is the start. What `PPOTrainer.update` raises.
    """
    from jade_training.learner.trainer import PPOTrainer

    if out.resolve() == start.resolve():
        raise UsageError(f"{str(out)!r} is the start itself.", code="TRAIN_OUT", hint="another --out folder")
    trainer = PPOTrainer(start, config, out=out, roles=given.preset.trainable, replay=replay)
    if checkpoint is not None:
        trainer.load_checkpoint(checkpoint)
    version = None if any_version or checkpoint is not None else content_version(start)
    metrics = trainer.update(given.runs, given.scored, version=version)
    trainer.export(out)
    trainer.save_checkpoint(out / CHECKPOINT)
    return metrics


@dataclass(frozen=True, slots=True)
class Examples:
    """(prompt ids, action ids) to imitate, those held out by role, and the prompt profile that is taught (None: the
    start's own).
    """

    pairs: list[Pair]
    held_out: dict[str, list[Pair]] = field(default_factory=dict)
    profile: str | None = None


def from_file(path: Path, start: Path, *, share: float, mixture: Mixture | None = None, seed: int = 0) -> Examples:
    """The demonstrations of a file (`jade demonstrations`), as the start's tokenizer writes them.

    Args:
        share: of the questions that is held out.
        mixture: shares of roles or data sets among those that are learned from, drawn with the seed.

    Raises:
        DataError: DEMONSTRATIONS_FILE, SFT_EMPTY. ConfigError: BAD_MIXTURE. BackboneError: what reading the start's
            tokenizer raises.
    """
    from jade_graph.backbones.codec import Codec
    from jade_training.supervised import files

    shown, about = files.read(path)
    profile = str(about.get("profile") or "brief")
    codec = Codec.from_folder(start, profile=profile)
    learned, kept = files.held_out(shown, share)
    if not learned:
        raise DataError(f"{str(path)!r} has nothing to learn from.", code="SFT_EMPTY", hint="a lower --held-out")
    if mixture is not None:
        learned = mixture.drawn(learned, part_of(mixture.by), seed=seed)
    by_role = {role: files.pairs(codec, [s for s in kept if s.role == role]) for role in files.by_role(kept)}
    return Examples(files.pairs(codec, learned), by_role, profile)


def part_of(by: str) -> Callable[[Shown], str]:
    """What a demonstration counts as in a mixture. Raises `ConfigError` BAD_MIXTURE."""
    if by == "role":
        return lambda shown: shown.role
    if by == "dataset":
        return lambda shown: dataset_of(shown.question_id)
    raise ConfigError(
        f"a demonstration has no {by}.", code="BAD_MIXTURE", hint="by = role or dataset; jade improve takes type too"
    )


def is_export(path: str) -> bool:
    """Whether it is a folder that `jade export` wrote."""
    return bool(read_json(Path(path) / "manifest.json").get("kind") == KIND)


def went_well(export: str, minimum: float) -> list[Shown]:
    """What roles of an export's runs did as demonstrations: the legal, finished actions of runs whose outcome is at
    least `minimum`, each once.

    Raises `DataError` SFT_EMPTY, and those of `material`.
    """
    from jade_training.supervised.sft import good_actions

    given = material(export)
    good = good_actions(given.runs, given.scored, minimum, roles=given.preset.trainable)
    found = dict.fromkeys(Shown(t.question_id, t.role, tuple(t.prompt_messages), t.action_text) for t in good)
    if not found:
        raise _none_so_good(export, minimum, given)
    return list(found)


def _none_so_good(source: str, minimum: float, given: Material) -> DataError:
    best = max((s.outcome_total for s in given.scored.values() if s.outcome_total is not None), default=None)
    told = "no run is scored" if best is None else f"the best run earned {best:.2f}"
    return DataError(
        f"no action of {source!r} is from a run that earned {minimum:g}: {told}.",
        code="SFT_EMPTY",
        hint="a lower --minimum, or more runs",
    )


def examples(source: str, start: Path, *, count: int, minimum: float, seed: int) -> list[Pair]:
    """(prompt ids, action ids) to imitate: "microworld" demonstrations, or the good actions of an export.

    Args:
        count: of demonstrations; `minimum`: outcome of a run whose actions are good.

    Raises:
        DataError: SFT_EMPTY (no run is that good), those of `material`.
    """
    from jade_training.supervised.sft import demonstrations, examples_of

    if source == MICROWORLD:
        from jade_graph.backbones.codec import Codec

        return demonstrations(Codec.from_folder(start).tokenizer, count, seed=seed)
    given = material(source)
    found = examples_of(given.runs, given.scored, minimum, roles=given.preset.trainable)
    if not found:
        raise _none_so_good(source, minimum, given)
    return found
