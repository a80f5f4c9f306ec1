"""Our PPO arithmetic against TRL 1.12.0's, the last release that had a PPO trainer, on one fixed batch.

Invariant: both sides read the same numbers from one .npz file, each in its own environment; none of TRL's text is kept
here. What TRL offers as functions is called. What it computes within `PPOTrainer.train` is run from the installed file
itself: the statements are found there by the names that they assign, compiled, and quoted by line.

    python benchmarks/bench_ppo.py batch BATCH.npz           writes the batch
    python benchmarks/bench_ppo.py trl BATCH.npz THEIRS.npz   where TRL 1.12.0 is installed
    python benchmarks/bench_ppo.py compare BATCH.npz THEIRS.npz   where this project is installed; fails above 1e-5
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

VERSION = "1.12.0"
TOLERANCE = 1e-5
ROWS, LENGTH = 24, 13
SETTINGS = {"gamma": 0.97, "lam": 0.9, "cliprange": 0.2, "cliprange_value": 0.2, "kl_coef": 0.05}


def make_batch(seed: int = 0) -> dict[str, np.ndarray]:
    """A ragged batch of ROWS responses of 1 to LENGTH tokens, far enough from the old policy that clipping binds.

    Returns:
        `lengths` (R,); `new`, `old`, `reference`: log-probabilities (R, L); `values`, `predicted`: values before and
        after (R, L); `scores` (R,). Float32; what lies past a response's end is noise, which must not matter.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LENGTH, ROWS)
    lengths[:2] = 1, LENGTH - 1
    old = -rng.exponential(1.0, (ROWS, LENGTH))
    values = rng.normal(0.4, 0.5, (ROWS, LENGTH))
    batch = {
        "old": old,
        "new": np.minimum(old + rng.normal(0.0, 0.25, old.shape), -1e-4),
        "reference": np.minimum(old + rng.normal(0.0, 0.4, old.shape), -1e-4),
        "values": values,
        "predicted": values + rng.normal(0.0, 0.3, values.shape),
        "scores": rng.normal(0.5, 0.5, ROWS),
    }
    return {"lengths": lengths} | {name: part.astype(np.float32) for name, part in batch.items()}


# --- theirs -----------------------------------------------------------------------------------------------------------
class Lines:
    """Statements of `PPOTrainer.train` as installed, run on given names."""

    def __init__(self, path: Path, known: Mapping[str, Any]) -> None:
        self.path = path
        self.names: dict[str, Any] = dict(known)
        self.places: dict[str, str] = {}
        tree = ast.parse(path.read_text("utf-8"))
        [trainer] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "PPOTrainer"]
        [self._train] = [n for n in trainer.body if isinstance(n, ast.FunctionDef) and n.name == "train"]

    def run(self, first: tuple[str, int], last: tuple[str, int]) -> None:
        """Run the statements from the one that assigns `first` (name, nth time) to the one that assigns `last`.

        Those that assign nothing (deleting, freeing, stepping) are left out.
        """
        low, high = self.line(*first), self.line(*last)
        spans: dict[str, tuple[int, int]] = {}
        for node in self._statements(self._train.body):
            if low <= node.lineno <= high and (assigned := _assigned(node)):
                exec(compile(ast.Module([node], []), str(self.path), "exec"), self.names)
                for name in assigned:
                    spans[name] = spans.get(name, (node.lineno, 0))[0], node.end_lineno or node.lineno
        self.places |= {n: f"{self.path.name}:{a}" + (f"-{b}" if b > a else "") for n, (a, b) in spans.items()}

    def line(self, assigned: str, nth: int = 0) -> int:
        """The line of the nth statement that assigns this name, counted from 0."""
        found = [n.lineno for n in self._statements(self._train.body) if assigned in _assigned(n)]
        if len(found) <= nth:
            raise SystemExit(f"{self.path} does not assign {assigned!r} {nth + 1} times: is this TRL {VERSION}?")
        return found[nth]

    def _statements(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Statements in order: a loop or branch is one, unless it goes on to set up a context (then what is in it)."""
        found: list[ast.stmt] = []
        for node in body:
            opened = isinstance(node, ast.With) or any(isinstance(n, ast.With) for n in ast.walk(node))
            found += self._statements([*getattr(node, "body", []), *getattr(node, "orelse", [])]) if opened else [node]
        return found


def _assigned(node: ast.stmt) -> set[str]:
    """Names that a statement assigns, in whole or in part, anywhere in it."""
    parts = [n.value if isinstance(n, ast.Subscript) else n for n in ast.walk(node) if _stores(n)]
    return {n.id for n in parts if isinstance(n, ast.Name)}


def _stores(node: ast.AST) -> bool:
    return isinstance(node, ast.Name | ast.Subscript) and isinstance(node.ctx, ast.Store)


def theirs(batch: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """TRL's numbers, and where in its files each comes from."""
    import importlib.metadata
    import inspect
    from types import SimpleNamespace

    import torch
    from trl.experimental.ppo import ppo_trainer

    found = importlib.metadata.version("trl")
    if found != VERSION:
        raise SystemExit(f"this is TRL {found}, not {VERSION}")
    t = {name: torch.from_numpy(np.array(part)) for name, part in batch.items()}
    new, predicted = t["new"].requires_grad_(), t["predicted"].requires_grad_()
    args = SimpleNamespace(**SETTINGS, kl_estimator="k3", whiten_rewards=False)
    # They take predicted values from a pass over prompt and response: one place before, and one at the end too many.
    passed = torch.cat([predicted, torch.zeros(ROWS, 1)], 1)[..., None]
    known = {
        **vars(ppo_trainer),
        "args": args,
        "responses": t["old"],
        "sequence_lengths": t["lengths"] - 1,  # the index of the last token
        "logprobs": t["old"],
        "ref_logprobs": t["reference"],
        "values": t["values"],
        "scores": t["scores"],
        "context_length": 1,
        "micro_batch_inds": slice(None),
        "new_logprobs": new,
        "vpred_temp": passed,
    }
    lines = Lines(Path(inspect.getfile(ppo_trainer)), known)
    names, out, places = lines.names, dict[str, np.ndarray](), dict[str, str]()

    def keep(quantity: str, name: str) -> None:
        value = names[name].detach().numpy()
        out[quantity] = np.where(~names["padding_mask_p1"].numpy(), value, 0) if value.ndim == 2 else value
        places[quantity] = lines.places[name]

    lines.run(("response_idxs", 0), ("kl", 0))
    keep("KL k3", "kl")
    args.kl_estimator = "k1"
    lines.run(("kl", 0), ("returns", 0))
    for quantity, name in (("KL k1", "kl"), ("rewards", "rewards"), ("GAE", "advantages"), ("returns", "returns")):
        keep(quantity, name)
    places["GAE"] = lines.places["lastgaelam"]
    lines.run(("advantages", 1), ("advantages", 2))
    keep("whitened advantages", "advantages")
    names |= {"mb_advantage": names["advantages"], "mb_logprobs": names["logprobs"]}
    names |= {"mb_return": names["returns"], "mb_values": names["values"]}
    lines.run(("new_logprobs", 1), ("pg_loss", 0))
    names["ratio"] = names["ratio"] * ~names["padding_mask"]
    lines.run(("pg_clipfrac", 0), ("pg_clipfrac", 0))
    lines.run(("approxkl", 0), ("approxkl", 0))
    for quantity, name in (
        ("ratio", "ratio"),
        ("clipped policy loss", "pg_loss"),
        ("share of tokens clipped", "pg_clipfrac"),
        ("clipped value loss", "vf_loss"),
        ("KL k2, mean over L", "approxkl"),
    ):
        keep(quantity, name)
    for quantity, name, leaf in (("policy", "pg_loss", new), ("value", "vf_loss", predicted)):
        [gradient] = torch.autograd.grad(names[name], leaf, retain_graph=True)
        out[f"gradient of {quantity} loss"] = gradient.numpy()
        places[f"gradient of {quantity} loss"] = lines.places[name]
    whitened = ppo_trainer.masked_whiten(t["scores"], torch.ones(ROWS, dtype=torch.bool))
    out["masked_whiten(scores)"] = whitened.numpy()
    text, start = inspect.getsourcelines(ppo_trainer.masked_whiten)
    places["masked_whiten(scores)"] = f"{lines.path.name}:{start}-{start + len(text) - 1}"
    return out, places


# --- ours -------------------------------------------------------------------------------------------------------------
def ours(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same quantities by `jade_training.learner.ppo` and `jade_training.learner.advantages`.

    An episode of theirs has one step after its last token, which earns the score: `GAE` and returns have it too. They
    divide variances by n - 1 and we by n, so our whitened numbers are shown times sqrt((n - 1) / n).
    """
    import torch

    from jade_training.learner import ppo
    from jade_training.learner.advantages import gae, whiten

    lengths = [int(n) for n in batch["lengths"]]
    rows = np.repeat(np.arange(ROWS), lengths)
    columns = np.concatenate([np.arange(n) for n in lengths])
    steps = (np.repeat(np.arange(ROWS), [n + 1 for n in lengths]), np.concatenate([np.arange(n + 1) for n in lengths]))
    tokens = (rows, columns)
    new, old, reference = (torch.from_numpy(batch[name][tokens]) for name in ("new", "old", "reference"))
    new.requires_grad_()

    def laid(values: Any, at: Any = tokens) -> np.ndarray:
        out = np.zeros((ROWS, LENGTH))
        out[at] = np.asarray(values.detach() if isinstance(values, torch.Tensor) else values)
        return out

    k1, k3 = ppo.kl(old, reference, "k1"), ppo.kl(old, reference, "k3")
    rewards = laid(-SETTINGS["kl_coef"] * k1)
    rewards[np.arange(ROWS), lengths] = batch["scores"]
    advantages = np.zeros((ROWS, LENGTH))
    for i, n in enumerate(lengths):
        own = gae(rewards[i, : n + 1], batch["values"][i, : n + 1], SETTINGS["gamma"], SETTINGS["lam"])
        advantages[i, : n + 1] = own
    returns = advantages + laid(batch["values"][steps], steps)

    def whitened(raw: np.ndarray) -> np.ndarray:
        n = len(raw)
        return whiten(raw, ["one"] * n, np.ones(n), "batch") * np.sqrt((n - 1) / n)

    white = whitened(advantages[tokens])
    ratios = ppo.log_ratios(new, old, torch.from_numpy(rows), torch.zeros(ROWS, dtype=torch.bool))
    counts = {"count": ROWS, "tokens": len(rows)}
    weights = ppo.token_weights(
        torch.tensor(lengths), torch.from_numpy(rows), torch.ones(ROWS), normalisation="token", **counts
    )
    policy, clipped = ppo.clipped_policy_loss(
        ratios, torch.from_numpy(white.astype(np.float32)), weights, clip=SETTINGS["cliprange"]
    )
    predicted = torch.from_numpy(batch["predicted"][steps]).requires_grad_()
    even = torch.full((len(steps[0]),), 1 / len(steps[0]))
    value = ppo.value_loss(
        predicted,
        torch.from_numpy(batch["values"][steps]),
        torch.from_numpy(returns[steps].astype(np.float32)),
        even,
        clip=SETTINGS["cliprange_value"],
    )
    [policy_gradient] = torch.autograd.grad(policy, new, retain_graph=True)
    [value_gradient] = torch.autograd.grad(value, predicted)
    found = {
        "KL k1": laid(k1),
        "KL k3": laid(k3),
        "KL k2, mean over L": ppo.kl(new, old, "k2").sum() / (ROWS * LENGTH),
        "rewards": rewards,
        "GAE": advantages,
        "returns": returns,
        "whitened advantages": laid(white),
        "masked_whiten(scores)": whitened(batch["scores"].astype(np.float64)),
        "ratio": laid(ratios.exp()),
        "clipped policy loss": policy,
        "share of tokens clipped": clipped.float().mean(),
        "clipped value loss": value,
        "gradient of policy loss": laid(policy_gradient),
        "gradient of value loss": laid(value_gradient, steps),
    }
    return {k: np.asarray(v.detach() if isinstance(v, torch.Tensor) else v) for k, v in found.items()}


def compare(batch: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], places: Mapping[str, str]) -> int:
    """Print the table. Returns the exit status: 1 when a number differs by more than TOLERANCE, or one is missing."""
    own = ours(batch)
    print(f"{'quantity':26}{'TRL ' + VERSION:>14}{'ours':>14}{'max diff':>11}  theirs in")
    worst = 0.0
    for name in own:
        if name not in other or other[name].shape != own[name].shape:
            print(f"{name:26}{'missing, or of another shape':>39}")
            worst = np.inf
            continue
        a, b = other[name], own[name]
        difference = float(np.abs(a - b).max())
        worst = max(worst, difference if np.isfinite(difference) else np.inf)
        shown = [float(np.sqrt((x.astype(np.float64) ** 2).sum() / x.size)) if x.ndim else float(x) for x in (a, b)]
        print(f"{name:26}{shown[0]:14.7f}{shown[1]:14.7f}{difference:11.1e}  {places.get(name, '')}")
    print(f"largest difference {worst:.1e}, at most {TOLERANCE:.0e} allowed; of arrays the root mean square is shown")
    print("whitened: theirs divide by n - 1, ours by n; ours are shown times sqrt((n - 1) / n)")
    return int(worst > TOLERANCE)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["batch", path]:
            np.savez(path, **make_batch())
        case ["trl", path, out]:
            found, places = theirs(dict(np.load(path)))
            np.savez(out, places=json.dumps(places), **found)
        case ["compare", path, other]:
            numbers = dict(np.load(other))
            return compare(dict(np.load(path)), numbers, json.loads(str(numbers.pop("places"))))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
