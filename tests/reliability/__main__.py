"""`python tests/reliability`: what the project promises, counted at sizes that no test suite has.

Invariant: seeded, bounded and resumable: a part works in blocks, writes its counts after each, and goes on from there;
`--fresh` begins again. Exit code 1 where a promise was broken. `make reliability` runs all parts in full (hours).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import part_faults
import part_gate
import part_graphs
import part_kills
import part_load
import part_parsers
import part_soak

PARTS = {
    "parsers": part_parsers,
    "graphs": part_graphs,
    "gate": part_gate,
    "faults": part_faults,
    "kills": part_kills,
    "load": part_load,
    "soak": part_soak,
}


def counted(name: str, size: int, seed: int, folder: Path) -> dict[str, object]:
    """Run what is left of a part, and give its counts: sums, but for keys that begin with "most_"."""
    part, file = PARTS[name], folder / f"{name}.json"
    state: dict[str, object] = {"part": name, "size": size, "seed": seed, "done": 0, "seconds": 0.0, "figures": {}}
    if file.is_file():
        kept = json.loads(file.read_text())
        state = kept if (kept["size"], kept["seed"]) == (size, seed) else state
    while int(state["done"]) < size:  # type: ignore[call-overload]
        first = int(state["done"])  # type: ignore[call-overload]
        last, began = min(size, first + part.BLOCK), time.monotonic()
        found = part.block(first, last, seed, folder)
        figures: dict[str, object] = state["figures"]  # type: ignore[assignment]
        for key, value in found.items():
            known = figures.get(key)
            if known is None:
                figures[key] = value
            elif key.startswith("most_"):
                figures[key] = max(known, value)  # type: ignore[call-overload]
            else:
                figures[key] = known + value
        state |= {"done": last, "seconds": round(float(state["seconds"]) + time.monotonic() - began, 1)}  # type: ignore[arg-type]
        draft = file.with_suffix(".tmp")
        draft.write_text(json.dumps(state, indent=1))
        draft.replace(file)
        print(f"{name}: {last:,} of {size:,}", file=sys.stderr)
    state["broken"] = part.broken(state["figures"])
    return state


DOCS = Path(__file__).parents[2] / "docs" / "reliability.md"


def write(folder: Path) -> None:
    """The figures of every part that was counted, at the size at which it was."""
    lines = []
    for name, part in PARTS.items():
        if not (folder / f"{name}.json").is_file():
            continue
        state = json.loads((folder / f"{name}.json").read_text())
        figures = {key: value for key, value in state["figures"].items() if key not in ("examples", "rows")}
        size = f"{state['done']:,} of {state['size']:,}" if state["done"] < state["size"] else f"{state['done']:,}"
        held = "; broken: " + "; ".join(part.broken(state["figures"])) if part.broken(state["figures"]) else ""
        lines.append(f"**{name}**, {size} (in full {part.FULL:,}), seed {state['seed']}{held}")
        if figures:
            shown = ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in figures.items())
            lines.append(shown)
        if rows := state["figures"].get("rows"):
            cells = [f"| {r['fault']} | `jade {r['command']}` | {r['seen']} | {r['after'] or '-'} |" for r in rows]
            lines.append("\n".join(["| fault | command | while it lasts | afterwards |", "|---|---|---|---|", *cells]))
    head, _, rest = DOCS.read_text("utf-8").partition("<!-- counted -->")
    _, _, tail = rest.partition("<!-- end -->")
    DOCS.write_text(f"{head}<!-- counted -->\n" + "\n\n".join(lines) + f"\n<!-- end -->{tail}", "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/reliability", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes")
    parser.add_argument("--size", type=int, help="instead: of one part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(".reliability"), help="where counts are kept")
    parser.add_argument("--fresh", action="store_true", help="begin again")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="put what is in --out into docs/reliability.md")
    options = parser.parse_args()
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; known: {', '.join(PARTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    told = []
    for name in options.parts or PARTS:
        if options.fresh:
            (options.out / f"{name}.json").unlink(missing_ok=True)
        size = options.size or max(1, round(PARTS[name].FULL * options.scale))
        told.append(counted(name, size, options.seed, options.out))
    if options.write:
        write(options.out)
    if options.json:
        print(json.dumps(told, indent=1))
    else:
        for part in told:
            print(f"{part['part']}, {part['done']:,} in {part['seconds']} s")
            for key, value in part["figures"].items():  # type: ignore[attr-defined]
                print(f"  {key}: {value}")
            for line in part["broken"]:  # type: ignore[attr-defined]
                print(f"  BROKEN: {line}")
    return 1 if any(part["broken"] for part in told) else 0


if __name__ == "__main__":
    sys.exit(main())
