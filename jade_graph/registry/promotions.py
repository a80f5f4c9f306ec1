"""The promotion log, and how the alias `champion` moves.

Invariant: an entry is written before the alias moves, and the log's numbers, which MLflow gives out one by one, decide
between two who promote at once: an entry that does not directly follow what its writer had seen is void, and the alias
is not touched. An entry that its writer left open (a killed process) is settled by whoever comes next: done where the
alias moved, void where it did not.

The log is a registered model of its own, `jade-backbone-promotions`, a version per entry: the same in SQLite and on a
server, visible in MLflow's pages, and numbered by the database. Evidence lies as artifacts in the entry's run.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from jade_graph.errors import RegistryError
from jade_graph.registry.place import Place, absent
from jade_graph.registry.versions import ANY, CHALLENGER, CHAMPION, Kind, ModelVersion, Promotion

OPEN, DONE, VOID = "open", "done", "void"
_LOOK_S = 0.25
_MOST = 4500  # bytes of one tag: servers may refuse more than 5,000


def who() -> str:
    """user@host of this process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"


class Log:
    """The promotion log of one registered model.

    Args:
        place: of the registry.
        model: name of the registered model.
        patience_s: how long an entry of another host may stay open before it counts as left behind.
    """

    def __init__(self, place: Place, model: str, *, patience_s: float = 10.0) -> None:
        self._place, self._model, self.patience_s = place, model, patience_s

    @property
    def name(self) -> str:
        return f"{self._model}-promotions"

    # --- reading ------------------------------------------------------------------------------------------------------
    def entries(self) -> list[Promotion]:
        """What was done, the newest first."""
        if not self._place.made:
            return []
        champion, rows = self.champion(), self._rows()
        kept = [row for row in rows if row.tags.get("jade.state") == DONE]
        newest = max((int(row.version) for row in kept), default=0)
        # Its writer moved the alias and was killed before it said so.
        moved = [r for r in rows if _open(r) and int(r.version) > newest and int(r.tags["jade.to"]) == champion]
        return [_read(row) for row in sorted([*kept, *moved[:1]], key=lambda row: -int(row.version))]

    def champion(self, alias: str = CHAMPION) -> int | None:
        """The number behind an alias, None where nobody has it."""
        if not self._place.made:
            return None
        client = self._place.client
        from mlflow.exceptions import MlflowException

        with self._place.asking():
            try:
                return int(client.get_model_version_by_alias(self._model, alias).version)
            except MlflowException as error:
                if absent(error):
                    return None
                raise

    def _rows(self) -> list[Any]:
        return self._place.rows(self.name, tag="jade.to")

    # --- writing ------------------------------------------------------------------------------------------------------
    def move(
        self,
        kind: Kind,
        to: ModelVersion,
        *,
        expected: int | None = ANY,
        reason: str = "",
        summary: str = "",
        evidence: Mapping[str, Any] | None = None,
        files: Mapping[str, str] | None = None,
        experiment: str,
    ) -> Promotion:
        """Make `to` the champion and log it.

        Args:
            expected: the champion that this is decided against; `ANY` takes whoever it is.
            files: artifacts by name, e.g. {"champion.jsonl": ..}.
            experiment: id of the MLflow experiment that holds the evidence.

        Raises:
            RegistryError: PROMOTION_OUTDATED when the champion is another by now, PROMOTION_CONFLICT when another
                promotion came between, PROMOTION_SAME when `to` is the champion already, REGISTRY_BUSY.
        """
        client = self._place.client
        with self._place.asking():
            # Uploads come first: what follows is short.
            run_id, source = self._evidence(client, experiment, kind, to, evidence, files)
        with self._place.locked(f"promoting version {to.number}"), self._place.asking():
            self._make(client)
            seen = self._settled()
            champion = self.champion()
            if expected != ANY and champion != expected:
                raise outdated(expected, champion)
            if champion == to.number:
                raise same(to.number)
            tags = {
                "jade.state": OPEN,
                "jade.kind": kind,
                "jade.from": "" if champion is None else str(champion),
                "jade.to": str(to.number),
                "jade.when": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "jade.who": who(),
                "jade.process": f"{socket.gethostname()} {os.getpid()}",
                "jade.reason": reason[:_MOST],
                "jade.summary": summary[:_MOST],
                "jade.evidence": _short(evidence),
            }
            entry = client.create_model_version(
                self.name, source=source, run_id=run_id, tags=tags, description=_told(kind, champion, to, reason)
            )
            mine = client.get_model_version(self.name, entry.version).tags["jade.state"] == OPEN
            if int(entry.version) != seen + 1 or self.champion() != champion or not mine:
                client.set_model_version_tag(self.name, entry.version, "jade.state", VOID)
                raise conflict(to.number)
            client.set_registered_model_alias(self._model, CHAMPION, str(to.number))
            client.set_model_version_tag(self.name, entry.version, "jade.state", DONE)
            if self.champion(CHALLENGER) == to.number:
                client.delete_registered_model_alias(self._model, CHALLENGER)
        return _read(entry)

    def before(self) -> int:
        """The champion that a rollback returns to: the one that the present one replaced, rollbacks taken back.

        Raises:
            RegistryError: ROLLBACK_NOTHING.
        """
        now = self.champion()
        line: list[int] = []
        for entry in reversed(self.entries()):
            if entry.from_version is not None and (not line or line[-1] != entry.from_version):
                line.append(entry.from_version)  # the alias was moved by hand in between
            if entry.kind == "rollback":
                # Back to that place in the line: going back again goes further back.
                while line and line[-1] != entry.to_version:
                    line.pop()
            if not line or line[-1] != entry.to_version:
                line.append(entry.to_version)
        if line and line[-1] == now:
            line.pop()
        if now is None or not line:
            raise RegistryError(
                f"there is no champion before version {now}." if now else "there is no champion.",
                code="ROLLBACK_NOTHING",
                hint="jade history; jade promote VERSION makes one the champion",
            )
        return line[-1]

    def _settled(self) -> int:
        """Settle what others left open; returns the newest number of the log."""
        waited = time.monotonic() + self.patience_s
        while True:
            rows = self._rows()
            left = [row for row in rows if _open(row)]
            if not left or time.monotonic() >= waited or all(self._left_behind(row) for row in left):
                break
            time.sleep(_LOOK_S)
        champion, newest = self.champion(), max((int(row.version) for row in left), default=0)
        for row in left:
            moved = int(row.version) == newest and int(row.tags["jade.to"]) == champion
            self._place.client.set_model_version_tag(self.name, row.version, "jade.state", DONE if moved else VOID)
        return max((int(row.version) for row in rows), default=0)

    def _left_behind(self, row: Any) -> bool:
        """Whether the writer of an open entry is surely gone: we hold the lock that it would need."""
        if not self._place.served:
            return self._place.file is not None
        host, _, pid = row.tags.get("jade.process", "").partition(" ")
        return host == socket.gethostname() and not _alive(pid)

    def _make(self, client: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(self.name, description=f"The promotion log of {self._model}: jade history.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _evidence(
        self,
        client: Any,
        experiment: str,
        kind: str,
        to: ModelVersion,
        evidence: Mapping[str, Any] | None,
        files: Mapping[str, str] | None,
    ) -> tuple[str, str]:
        """A run that holds the evidence; its id and where its artifacts are."""
        run = client.create_run(experiment, run_name=f"{kind} {to.name} {to.number}", tags={"jade.what": "promotion"})
        held = {**(files or {}), "evidence.json": json.dumps(dict(evidence or {}), indent=1, default=str) + "\n"}
        with tempfile.TemporaryDirectory() as folder:
            for name, text in held.items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            client.log_artifacts(run.info.run_id, folder)
        client.set_terminated(run.info.run_id)
        return run.info.run_id, run.info.artifact_uri


def outdated(expected: int | None, champion: int | None) -> RegistryError:
    return RegistryError(
        f"the champion is {_named(champion)} by now, and this was decided against {_named(expected)}.",
        code="PROMOTION_OUTDATED",
        hint="jade history shows what happened; jade promote again compares with the new champion",
    )


def conflict(number: int) -> RegistryError:
    return RegistryError(
        f"another promotion came between: version {number} was not promoted.",
        code="PROMOTION_CONFLICT",
        hint="jade history shows what happened; run jade promote again if it still applies",
    )


def same(number: int) -> RegistryError:
    return RegistryError(
        f"version {number} is the champion already.", code="PROMOTION_SAME", hint="jade versions lists the others"
    )


def _named(number: int | None) -> str:
    return "nobody" if number is None else f"version {number}"


def _told(kind: Kind, champion: int | None, to: ModelVersion, reason: str) -> str:
    start = {"promote": "Promoted", "first": "First champion", "force": "Forced", "rollback": "Rolled back"}[kind]
    return f"{start}: {_named(champion)} -> version {to.number}." + (f" {reason[:500]}" if reason else "")


def _open(row: Any) -> bool:
    return bool(row.tags.get("jade.state") == OPEN)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:
        return True
    return True


def _short(evidence: Mapping[str, Any] | None) -> str:
    """Figures as a tag; what does not fit is in the run's evidence.json alone."""
    out: dict[str, Any] = {}
    for key, value in (evidence or {}).items():
        if len(json.dumps({**out, key: value}, default=str)) <= _MOST:
            out[key] = value
    return json.dumps(out, default=str)


def _read(row: Any) -> Promotion:
    tags: Mapping[str, str] = row.tags
    return Promotion(
        number=int(row.version),
        kind=cast("Kind", tags["jade.kind"]),
        when=datetime.fromisoformat(tags["jade.when"]),
        who=tags.get("jade.who", ""),
        from_version=int(tags["jade.from"]) if tags.get("jade.from") else None,
        to_version=int(tags["jade.to"]),
        reason=tags.get("jade.reason", ""),
        run_id=row.run_id or "",
        summary=tags.get("jade.summary", ""),
        evidence=json.loads(tags.get("jade.evidence") or "{}"),
    )


__all__: Sequence[str] = ["DONE", "OPEN", "VOID", "Log", "conflict", "outdated", "same", "who"]
