"""`promote`: from a version to the champion, through the gate.

Invariant: the verdict is about the champion that it was measured against; when another is champion at the end, nothing
is promoted. What was decided, by whom and on which rows is logged before the alias moves. A try that the gate refuses
is counted on the champion that it was made against: who looks often must see more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.gate.policy import Policy
from jade_graph.gate.trial import Tick, Trial, load_evidence, measure, silent
from jade_graph.gate.verdict import Finding, Verdict, judge
from jade_graph.registry import CHALLENGER, ModelVersion, Promotion, Registry
from jade_graph.scoring.evaluation import Row

if TYPE_CHECKING:
    from jade_graph.settings.config import Config

_MICROWORLD = "microworld:"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt to promote.

    Attributes:
        challenger, champion: the versions; no champion before the first promotion.
        verdict: of the gate; None where it was passed by (`force` without evidence).
        promotion: the log's entry; None when the gate refused, or only looked.
    """

    challenger: ModelVersion
    champion: ModelVersion | None
    verdict: Verdict | None
    promotion: Promotion | None
    trial: Trial | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "promoted": self.promotion is not None,
            "challenger": self.challenger.as_dict(),
            "champion": None if self.champion is None else self.champion.as_dict(),
            "verdict": None if self.verdict is None else self.verdict.as_dict(),
            "promotion": None if self.promotion is None else self.promotion.as_dict(),
            "manifest": None if self.trial is None else dict(self.trial.manifests[self.challenger.number]),
        }


def promote(
    registry: Registry,
    reference: str | int = CHALLENGER,
    config: Config | None = None,
    *,
    policy: Policy | None = None,
    evidence: Sequence[Path] | None = None,
    trial: Trial | None = None,
    force: bool = False,
    reason: str = "",
    dry_run: bool = False,
    limit: int | None = None,
    tick: Tick = silent,
) -> Outcome:
    """Compare a version with the champion and make it champion if the gate passes.

    Args:
        reference: the challenger.
        config: settings of the evaluation (preset, corpus, limits); None: those of this folder.
        evidence: files of `jade eval --out`, the champion's and the challenger's (only the latter where there is no
            champion), instead of evaluating.
        trial: a trial that was measured already, instead of either.
        force: past the gate; needs `reason`. With evidence, the verdict is logged all the same.
        dry_run: judge only.
        limit: only the first so many questions.

    Raises:
        UsageError: GATE_FEW_QUESTIONS, PROMOTION_REASON, EVIDENCE_OTHER_MODEL, EVIDENCE_FILES, MANIFEST_DIFFERS,
            VERSION_REFERENCE.
        RegistryError: VERSION_UNKNOWN, PROMOTION_SAME, PROMOTION_OUTDATED, PROMOTION_CONFLICT, REGISTRY_BUSY ..
    """
    from jade_graph.errors import UsageError
    from jade_graph.registry.promotions import outdated

    policy = policy or Policy.load()
    versions = contestants(registry, reference)
    challenger, champion = versions[-1], versions[0] if len(versions) > 1 else None
    if force and not reason.strip():
        raise UsageError(
            "a promotion past the gate needs a reason.", code="PROMOTION_REASON", hint="--force --reason TEXT"
        )
    if trial is None and evidence:
        if len(evidence) != len(versions):
            raise UsageError(
                f"files of evidence needed: {len(versions)}; given: {len(evidence)}.",
                code="EVIDENCE_FILES",
                hint="--evidence CHAMPION.jsonl --evidence CHALLENGER.jsonl; without a champion the latter only",
            )
        files = {version.number: path for version, path in zip(versions, evidence, strict=True)}
        trial = load_evidence(files, versions)
    if trial is None and not force:
        from jade_graph.settings.config import load_config

        trial = measure(registry, versions, config or load_config(), policy, limit=limit, decides=True, tick=tick)
    if trial is not None and champion is not None and champion.number not in trial.rows:
        raise outdated(next((n for n in trial.rows if n != challenger.number), None), champion.number)
    told: list[Finding] = []
    if trial is not None and policy.look.pairs:
        from jade_graph.gate.inside import reported
        from jade_graph.settings.config import load_config

        told = reported(versions, policy, config or load_config())
    tries = 1 if champion is None else registry.refusals(champion.number) + 1
    verdict = None if trial is None else _verdict(registry, challenger, champion, trial, policy, tries, told)
    promotion = None
    if verdict is not None and champion is not None and not (verdict.passed or dry_run or force):
        registry.refused(champion.number)
    if not dry_run and (force or (verdict is not None and verdict.passed)):
        kind = "force" if force else "first" if champion is None else "promote"
        promotion = registry.promote(
            challenger.number,
            # What was measured decides: another champion since then is another question.
            expected=None if champion is None else champion.number,
            kind=kind,  # type: ignore[arg-type]
            reason=reason,
            summary="not judged" if verdict is None else verdict.summary,
            evidence=None if verdict is None else verdict.figures(),
            files=artifacts(trial, verdict, policy, challenger, champion),
        )
    return Outcome(challenger, champion, verdict, promotion, trial)


def contestants(registry: Registry, reference: str | int) -> list[ModelVersion]:
    """Champion and challenger, or the challenger alone where there is no champion.

    Raises:
        RegistryError: VERSION_UNKNOWN, PROMOTION_SAME. UsageError: VERSION_REFERENCE.
    """
    from jade_graph.registry.promotions import same

    challenger, number = registry.get(reference), registry.current()
    if number is None:
        return [challenger]
    if number == challenger.number:
        raise same(number)
    return [registry.get(number), challenger]


def _verdict(
    registry: Registry,
    challenger: ModelVersion,
    champion: ModelVersion | None,
    trial: Trial,
    policy: Policy,
    tries: int,
    told: Sequence[Finding] = (),
) -> Verdict:
    return judge(
        trial.rows[challenger.number],
        None if champion is None else trial.rows[champion.number],
        policy,
        same_machine=trial.same_machine,
        tries=tries,
        before=[held_out(registry.manifest(challenger.number).get("data") or {}, trial), *told],
    )


def held_out(data: Mapping[str, Any], trial: Trial) -> Finding:
    """Whether the questions are none that the challenger learned from."""
    learned, chosen = str(data.get("train") or ""), str(data.get("selected_on") or "")
    if learned and _same(learned, trial.dataset):
        return Finding(
            "held out",
            False,
            f"the challenger learned from {learned!r}, and {trial.dataset!r} is not held out from it",
            "questions it has not seen: --dataset",
            {"learned_from": learned, "dataset": trial.dataset},
        )
    told = f"{trial.dataset}" + (f", learned from {learned}" if learned else ", what it learned from is not known")
    if chosen and _same(chosen, trial.dataset):
        told += "; the checkpoint was chosen on these questions, which flatters it"
    return Finding("held out", True, told, "", {"learned_from": learned, "dataset": trial.dataset})


def _same(a: str, b: str) -> bool:
    """Equal data sets; of microworlds, worlds of one split."""
    if a.startswith(_MICROWORLD) and b.startswith(_MICROWORLD):
        return a.removeprefix(_MICROWORLD).partition("?")[0] == b.removeprefix(_MICROWORLD).partition("?")[0]
    return a == b


def artifacts(
    trial: Trial | None,
    verdict: Verdict | None,
    policy: Policy,
    challenger: ModelVersion,
    champion: ModelVersion | None,
) -> dict[str, str]:
    """The evidence as files: the rows of both, the verdict, the policy."""
    out = {"policy.toml": policy.toml()}
    if verdict is not None:
        out["verdict.json"] = json.dumps(verdict.as_dict(), indent=1, default=str) + "\n"
    if trial is not None:
        for version, name in ((challenger, "challenger.jsonl"), (champion, "champion.jsonl")):
            if version is not None:
                out[name] = _lines(trial.rows[version.number], trial.manifests[version.number])
    return out


def _lines(rows: Sequence[Row], manifest: Mapping[str, Any]) -> str:
    """As `evaluation.save_rows` writes them, so that `--evidence` reads them again."""
    return "\n".join([json.dumps({"manifest": dict(manifest)}), *(json.dumps(asdict(row)) for row in rows)]) + "\n"
