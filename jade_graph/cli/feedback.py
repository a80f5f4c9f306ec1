"""`jade feedback`: what users did with the passages that they were shown, and what it says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group
from jade_graph.errors import DataError, UsageError

if TYPE_CHECKING:
    from jade_graph.feedback.examination import Examination
    from jade_graph.feedback.keeping import FeedbackEvents
    from jade_graph.feedback.log import Log

app = group("feedback", "What users clicked and used: events in, training labels out.")
Signal = Annotated[str, typer.Option(metavar="any|clicked|cited", help="What counts: opened or used, opened, used.")]
Looks = Annotated[
    str, typer.Option("--examination", metavar="fit|power:ETA|FILE", help="Who looks at which rank; fit: by EM.")
]


@command(app, "import")
def import_(
    cli: Cli,
    file: Annotated[Path, typer.Argument(help="Events, a JSON object a line: user, query, rank, document, clicked ..")],
) -> None:
    """Take events into the run store. The same file twice counts once; users become pseudonyms."""
    from jade_graph.feedback.events import Reading, read_events

    told = Reading()
    for _ in read_events(file, told):
        """All of it is read before any of it is taken."""
    with _events(cli, new=True) as events:
        kept = events.add(read_events(file))
        total = len(events)
    if told.without_session:
        cli.out.warn(
            f"{told.without_session} events name no session: lines that follow each other with the same user and query "
            "were taken for one list."
        )
    value = {
        "read": told.events,
        "new": kept.new,
        "known": kept.known,
        "without_session": told.without_session,
        "total": total,
    }
    cli.out.result(value, lambda: f"{kept.new:,} events new, {kept.known:,} known; {total:,} in the store")


@command(app)
def fit(
    cli: Cli,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the labels go, a query a line.")] = Path(
        "feedback-labels.jsonl"
    ),
    estimator: Annotated[
        str, typer.Option(metavar="user-aware|per-impression|oblivious|naive", help="How clicks become relevance.")
    ] = "user-aware",
    examination: Looks = "fit",
    signal: Signal = "any",
    interval: Annotated[
        str, typer.Option(metavar="score|bootstrap", help="Intervals: by the model, or by resampling sessions.")
    ] = "score",
    level: Annotated[float, typer.Option(help="Coverage of the intervals.")] = 0.95,
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap.")] = 200,
    min_shown: Annotated[int, typer.Option(min=1, help="Leave out passages shown less often.")] = 1,
    corpus: Annotated[
        str | None, typer.Option(metavar="CORPUS|DATASET", help="Where the passages' texts are; needed for training.")
    ] = None,
) -> None:
    """Relevance of passages from the events, with intervals, as training labels."""
    from jade_graph.feedback.estimators import estimate
    from jade_graph.feedback.labels import make_labels, write_lines

    texts = None if corpus is None else _texts(cli, corpus)
    with _events(cli) as events:
        log, looks, refit = _fitted(events, signal, examination, interval)
        found = estimate(
            log,
            looks,
            estimator,
            interval=interval,
            level=level,
            seed=cli.settings.seed,
            resamples=resamples,
            refit=refit,
        )
        source = {
            "kind": "feedback",
            "estimator": estimator,
            "signal": signal,
            "interval": interval,
            "level": level,
            "examination": looks.how,
        }
        labels = make_labels(log, found, source, texts=texts, min_shown=min_shown)
        write_lines(out, labels.lines)
        events.wrote(out)
    if texts is None:
        cli.out.warn("the labels hold no texts, and nothing can be trained on them: name the corpus with --corpus.")
    if labels.without_text:
        cli.out.warn(f"{labels.without_text} passages are not in {corpus!r} and have no label.")
    value = {
        "file": str(out),
        "estimator": estimator,
        "queries": len(labels.lines),
        "documents": labels.documents,
        "without_text": labels.without_text,
        "too_few": labels.too_few,
        "sessions": log.sessions,
        "users": len(log.users),
        "examination": looks.as_dict(log.ranks),
    }
    cli.out.result(
        value,
        lambda: (
            f"{labels.documents:,} labels of {len(labels.lines):,} queries from {log.sessions:,} sessions of "
            f"{len(log.users):,} users in {out} (examination {looks.how})"
        ),
    )


@command(app)
def diagnose(cli: Cli, examination: Looks = "fit", signal: Signal = "any") -> None:
    """Who looks where, how much the events say, and what they cannot tell."""
    from jade_graph.feedback.diagnosis import diagnose as diagnosis

    with _events(cli) as events:
        try:
            log, looks, _ = _fitted(events, signal, examination, "score")
        except DataError as error:
            if error.error_code != "FEEDBACK_UNLINKED":
                raise
            log, looks = _log(events, signal), None
    found = diagnosis(log, looks)
    cli.out.result(found.as_dict(), lambda: _shown(found))


@command(app)
def forget(
    cli: Cli,
    user: Annotated[str | None, typer.Argument(help="A user, as the app names them, or the pseudonym.")] = None,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="Instead: events older than so many days.")
    ] = None,
    also: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Copies of labels or events to go through, too.")
    ] = None,
) -> None:
    """Delete a user's events, ratings and comments, here and in every file that was written from them."""
    if (user is None) == (older_than is None):
        raise UsageError(
            "name one user, or an age.",
            code="FEEDBACK_FORGET",
            known=("USER", "--older-than DAYS"),
            hint="jade feedback forget USER",
        )
    with _events(cli) as events:
        if user is None:
            assert older_than is not None
            gone = events.forget_before(time.time() - 86_400 * older_than)
            cli.out.result({"events": gone}, lambda: f"{gone:,} events deleted")
            return
        value = _forget(events, user, also or [])
    missing = [f"{each['file']} was not gone through: {each['why']}" for each in value["missing"]]
    cli.out.result(
        value,
        lambda: [
            f"{value['user']}: {value['events']:,} events and {value['ratings']:,} ratings deleted",
            *(f"{each['file']}: {each['lines']} lines deleted" for each in value["files"]),
            *missing,
            "Labels are made again with jade feedback fit.",
        ],
    )


@command(app)
def export(
    cli: Cli,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the events go, a JSON object a line.")] = Path(
        "feedback-events.jsonl"
    ),
) -> None:
    """Write all events, in the format of the import; users are their pseudonyms."""
    from jade_graph.feedback.events import write_events

    with _events(cli) as events:
        count = write_events(out, events)
        events.wrote(out)
    cli.out.result({"file": str(out), "events": count}, lambda: f"{count:,} events in {out}")


# --- within -----------------------------------------------------------------------------------------------------------
@contextmanager
def _events(cli: Cli, *, new: bool = False) -> Iterator[FeedbackEvents]:
    """The events of the settings' store; to look must not make one."""
    from jade_graph.feedback.keeping import FeedbackEvents
    from jade_graph.runs.store import RunStore

    where = cli.settings.store_url
    if not (new or isinstance(where, str) or where.exists()):
        raise DataError("there are no feedback events.", code="FEEDBACK_NONE", hint="jade feedback import FILE")
    with RunStore(where) as store:
        yield FeedbackEvents(store.engine)


def _log(events: FeedbackEvents, signal: str) -> Log:
    from jade_graph.feedback.log import log_of

    return log_of(events, signal)


def _fitted(events: FeedbackEvents, signal: str, spec: str, interval: str) -> tuple[Log, Examination, Any]:
    """The log, its examination, and what fits it again to a resample (None: it was given)."""
    from jade_graph.feedback.examination import fit_examination, read_examination

    if spec != "fit":
        looks = read_examination(spec, events.user)
        return _log(events, signal), looks, None
    log = _log(events, signal)
    looks = fit_examination(log)
    if interval != "bootstrap":
        return log, looks, None
    return log, looks, lambda times: fit_examination(log, sessions=times, start=looks, steps=60)


def _texts(cli: Cli, corpus: str) -> dict[str, str]:
    """Texts by passage id, with the title before them where there is one."""
    if ":" in corpus:
        from jade_graph.data import load_dataset

        dataset = load_dataset(corpus)
        cli.noted(dataset)
        return {p.id: str(p) for p in dataset.passages}
    from jade_graph.retrieval.corpus import open_corpus

    found = open_corpus(corpus, cli.settings.data_path, mode="bm25")
    try:
        return {p.id: str(p) for p in found.passages}
    finally:
        found.close()


def _forget(events: FeedbackEvents, user: str, also: list[Path]) -> dict[str, Any]:
    from jade_graph.feedback.labels import forget_in

    for path in also:
        if not path.is_file():
            raise UsageError(f"there is no file {str(path)!r}.", code="FEEDBACK_FILE", hint="nothing was deleted yet")
    name = events.user(user)
    gone, ratings = events.forget(user)
    files, missing = list[dict[str, Any]](), list[dict[str, Any]]()
    for path in dict.fromkeys([*events.written(), *(p.absolute() for p in also)]):
        try:
            if lines := forget_in(path, name):
                files.append({"file": str(path), "lines": lines})
        except FileNotFoundError:
            missing.append(
                {"file": str(path), "why": "it is not there any more; name where it is now with --also FILE"}
            )
        except (DataError, OSError) as error:
            missing.append({"file": str(path), "why": str(error)})
    return {"user": name, "events": gone, "ratings": ratings, "files": files, "missing": missing}


def _shown(found: Any) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    c = found.counts
    head = (
        f"{c['events']:,} events, {c['sessions']:,} sessions, {c['users']:,} users, {c['queries']:,} queries, "
        f"{c['pairs']:,} passages, {c['clicks']:,} clicks"
    )
    ranks = [(r.rank, r.shown, r.clicks, cell(r.examined), cell(r.least), cell(r.most)) for r in found.ranks]
    out: list[Any] = [
        Text(head, style="bold"),
        table(
            ("rank", "shown", "clicks", "looked at", "least", "most"),
            ranks,
            title="Examination by rank (mean of the impressions; of the users the least and the most)",
            right="rank shown clicks least most",
        ),
        table(
            ("user", "sessions", "shown", "clicks", "looked at, rank 1, 2, .."),
            [
                (u.user, f"{100 * u.share:.1f} %", u.shown, u.clicks, " ".join(f"{x:.2f}" for x in u.examined[:10]))
                for u in found.users
            ],
            title="Examination by user (those with the most sessions)",
            right="sessions shown clicks",
        ),
    ]
    if found.effective:
        rows = [
            (name, *(f"{q:,.1f}" for q in each), f"{100 * found.expected_bias[name]:.0f} %")
            for name, each in found.effective.items()
        ]
        out.append(
            table(
                ("estimator", "10 %", "half", "90 %", "expected to be off by"),
                rows,
                title="Surely seen impressions that a passage's events are worth",
                right="half",
            )
        )
    out.append(Text("What these events cannot tell", style="bold"))
    return [*out, *(f"  {text}" for text in found.unclear)]
