"""`jade mix search`: which share of which data the next training should have.

Invariant: thin. The command parses its options, calls `mixing`, and prints what came out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group
from jade_graph.cli.indexing import indexing

LISTED = {"mix": ("Learn", "Which share of which data to train on next.")}
app = group("mix", "Shares of training data, searched by merging experts.")


@command(app)
def search(
    cli: Cli,
    base: Annotated[str, typer.Option(help="What the experts were trained from: a version or a folder.")],
    expert: Annotated[
        list[str],
        typer.Option(metavar="PART=VERSION", help="A part of the data, and a version or folder trained on it alone."),
    ],
    score: Annotated[
        list[str],
        typer.Option(metavar="DATASET", help="Held-out questions (F1 by kind) or demonstrations (loss by role)."),
    ],
    budget: Annotated[int, typer.Option(min=4, help="Merges that are scored.")] = 40,
    by: Annotated[str, typer.Option(help="What the parts are: role, dataset or type.")] = "role",
    weigh: Annotated[
        list[str] | None, typer.Option(metavar="CAPABILITY=W", help="Weight in the utility; default: all alike.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="That answers questions.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions of each.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 16,
    seed: Annotated[int | None, typer.Option(help="Of the design and of the regressors.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the search; the same call goes on where it stopped.")] = Path(
        "mix"
    ),
) -> None:
    """Merge experts at many points of the simplex, score the merges, and propose the shares of the data (MergeMix).

    Writes OUT/mixture.toml, which jade sft --mixture and jade improve --mixture read, and OUT/surface.png.
    """
    from jade_graph.registry import Registry
    from jade_training.improve.inputs import data_of
    from jade_training.merging.parents import parents_of
    from jade_training.mixing.mixture import Mixture
    from jade_training.mixing.picture import draw
    from jade_training.mixing.scoring import Asked, Scorer
    from jade_training.mixing.search import DRIFT
    from jade_training.mixing.search import search as searched
    from jade_training.supervised import files

    for name, value in (("preset", preset), ("seed", seed)):
        cli.put(name, value)
    pairs = dict(_pair(text, "--expert qa=3") for text in expert)
    Mixture(dict.fromkeys(pairs, 1 / len(pairs)), by)  # parts that are none are told before anything is merged
    weights = {name: _number(value, name) for name, value in (_pair(text, "--weigh AG=2") for text in weigh or [])}
    registry = Registry.of(cli.settings)
    start = parents_of(registry, [base])[0]
    experts = {name: parents_of(registry, [version])[0] for name, version in pairs.items()}
    shown: list[Any] = []
    asked, profile = list[Asked](), None
    with indexing(cli) as progress:
        for spec in score:
            if Path(spec).is_file() and _demonstrations(Path(spec)):
                found, about = files.read(Path(spec))
                shown, profile = shown + found, about.get("profile")
                continue
            asked.append(data_of(cli.config, spec, limit=limit, progress=progress))
    scorer = Scorer(
        asked, shown, preset=cli.settings.preset, profile=profile, k=cli.settings.k, concurrency=concurrency
    )
    with cli.out.progress(f"merging {len(experts)} experts", "mixtures") as tick:
        found_ = searched(
            start, experts, scorer, out, budget=budget, weights=weights or None, facts=scorer.facts(),
            seed=cli.settings.seed, tell=tick,
        )  # fmt: skip
    far = {name: d for name, d in found_.drift.items() if d > DRIFT}
    if far:
        cli.out.warn(
            f"{', '.join(f'{n} moved by {d:.0%} of the base' for n, d in far.items())}, above {DRIFT:.0%}: merged and "
            "mixed need not agree any more. Train experts more briefly."
        )
    mixture = Mixture(_rounded(found_.shares), by)
    mixture.write(
        out / "mixture.toml",
        about=[f"utility {found_.utility['verified']:.3f} (the middle: {found_.utility['middle']:.3f})"],
    )
    draw(found_, out / "surface.png", weights=weights or None)
    told = {"out": str(out), "mixture": str(out / "mixture.toml"), "by": by, **found_.as_dict()}
    cli.out.result(told, lambda: _show(told))


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    """In thousandths, still summing to 1."""
    found = {name: round(share, 3) for name, share in shares.items()}
    most = max(found, key=lambda n: found[n])
    found[most] = round(found[most] + 1.0 - sum(found.values()), 3)
    return found


def _pair(text: str, example: str) -> tuple[str, str]:
    from jade_graph.errors import UsageError

    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise UsageError(f"{text!r} is no name with a value.", code="BAD_PAIR", hint=example)
    return name.strip(), value.strip()


def _number(text: str, name: str) -> float:
    from jade_graph.errors import UsageError

    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{name}={text!r} is no number.", code="BAD_PAIR", hint=f"--weigh {name}=2") from None


def _demonstrations(path: Path) -> bool:
    import json

    try:
        with path.open(encoding="utf-8") as file:
            return "manifest" in json.loads(file.readline()) and "action" in json.loads(file.readline() or "{}")
    except (ValueError, OSError, TypeError):
        return False


def _show(told: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    rows = [(name, f"{share:.1%}", f"{told['drift'][name]:.1%}") for name, share in told["shares"].items()]
    scores = [(c, f"{told['predicted'][c]:.3f}", f"{v:.3f}") for c, v in told["verified"].items()]
    utility = told["utility"]
    line = (
        f"utility {utility['verified']:.3f}; the best merge before {utility['best scored']:.3f}, "
        f"equal shares {utility['middle']:.3f}"
    )
    return [
        table(("part", "share", "drift"), rows, title="the best mixture", right="share drift"),
        table(("capability", "predicted", "merged"), scores, title="verified by a merge", right="predicted merged"),
        Text(line),
        Text(f"Next: jade sft FILE --mixture {told['mixture']} --out NEW", style="dim"),
    ]
