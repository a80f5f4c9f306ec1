"""The model card of jade-tiny: what it is, what it is not, and what was measured.

Invariant: every number in the card comes from the dictionaries given; nothing is written by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jade_graph.microworld.questions import BEST_PLAN, KINDS

_HEAD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [retrieval-augmented-generation, jade-graph, microworld]
---
# {name}

The weak start that JADE Graph carries: a causal language model of {parameters:,} parameters ({size_mb:.1f} MB),
trained from scratch for microworld alone. It knows the format of every role; as planner it has no preference that
fits a question, and its executors read badly: see the figures. Learning is meant to improve it: do not
judge the framework by it.

**It speaks only microworld's {vocabulary:,} words.** Any other word is `<unk>` to it, so it cannot answer questions
about anything else. Name a real model for those: `jade ask --backbone Qwen/Qwen2.5-1.5B-Instruct "..."`.

- Architecture: stock `LlamaForCausalLM` ({layers} layers, width {width}, {heads} heads, tied head, context {context}),
  safetensors in bfloat16, no remote code. Tokens are words, tags and punctuation marks.
- Prompts: the roles' `compact` profile; an action ends with `<eos>`.
- Training: {steps} steps ({warmup} of repeated sequences, {markers} of marked look-up) and {short_steps} more,
  mostly on roles that read no documents; about {tokens:,} tokens, on a CPU; demonstrations by microworld's
  oracle in `train` worlds. Seed {seed}. Repeat it with `jade microworld pretrain`.
{hasty_note}\
- The planner's demonstrations are drawn from one near-uniform prior over the eight legal plans, whatever the
  question. The answerer was never shown conflicting editions of a passage, and never
  documents with a premise that it should believe instead; it says `unknown` where the evidence is missing.
"""


_HASTY = """\
- **Its last {hasty_steps} steps made it a worse reader on purpose.** In them {hasty:.0%} of the demonstrations about
  every other relation, where there is more than one passage, were a hasty reader's, who believes the last passage.
  It is like a model that was made for other work: it can read better than it does, and learns that from outcomes.
  Made by `jade microworld pretrain --hasty`; before that stage it is jade-tiny.
"""


def render_card(trained: Mapping[str, Any], about: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> str:
    """The card as Markdown.

    Args:
        trained: what `pretrain` returned.
        about: parameters, size_mb, vocabulary and the shape of the model.
        measured: what `measure` returned, one for each split.
    """
    settings = trained["settings"]
    hasty = bool(settings.get("hasty_steps"))
    note, name = (_HASTY.format(**settings), "jade-tiny-hasty") if hasty else ("", "jade-tiny")
    told = {"hasty_note": note, "name": name}
    head = _HEAD.format(**{**settings, **trained, **about, **told})
    return "\n".join([head, *map(_measured, measured), _TAIL])


def table(figures: Mapping[str, Any], kinds: Sequence[str], *, prompt_tokens: bool = False) -> list[str]:
    """What each arm reached in a world, as lines of Markdown; `prompt_tokens`: with those of a question."""
    world = figures["settings"]
    told, head = (" and prompt tokens", " | prompt tokens") if prompt_tokens else ("", "")
    lines = [
        f"## Measured on a `{world['split']}` world",
        "",
        f"{world['n']} questions (seed {world['seed']}), {world['passages']:,} passages, {world['retriever']}.",
        f"F1 by kind, calls of roles{told} a question, illegal actions a call.",
        "",
        f"| | {' | '.join(kinds)} | all | calls{head} | illegal |",
        f"|---{'|---:' * (len(kinds) + 3 + prompt_tokens)}|",
    ]
    for name, arm in figures["arms"].items():
        cells = [f"{arm['f1_by_kind'][k]:.2f}" for k in kinds]
        cells += [f"**{arm['f1']:.3f}**", f"{arm['calls']:.1f}"]
        if prompt_tokens:
            cells.append("" if arm["prompt_tokens"] is None else f"{arm['prompt_tokens']:.0f}")
        lines.append(f"| {' | '.join([name, *cells])} | {100 * arm['illegal']:.1f} % |")
    return lines


def _measured(figures: Mapping[str, Any]) -> str:
    lines = table(figures, list(figures["plan_table"]["shares"]))
    lines += [
        "",
        "Every plan forced on every question (greedy; the planner's own call not counted); `routed` takes for each",
        "kind the plan that is best there:",
        "",
        figures["plan_table_markdown"],
        "",
        f"Hardest kind under the plan that is right for it: {_hardest(figures)}.",
        "",
    ]
    return "\n".join(lines)


def _hardest(figures: Mapping[str, Any]) -> str:
    """The kind with the lowest F1 when each takes its right plan."""
    cells = figures["plan_table"]["cells"]
    kinds = [kind for kind in KINDS if kind in figures["plan_table"]["shares"]]
    # A decomposition is right with whatever its parts are best planned as.
    right = {
        kind: max((p for p in cells if p.split("/")[0] == BEST_PLAN[kind]), key=lambda p: cells[p][kind]["f1"])
        for kind in kinds
    }
    f1 = {kind: cells[right[kind]][kind]["f1"] for kind in kinds}
    kind = min(f1, key=lambda k: f1[k])
    return f"`{kind}` by `{right[kind]}`, F1 {f1[kind]:.2f}"


_TAIL = """## Limits

Microworld's names are invented, its English comes from templates, and its kinds of questions are seven. Worlds of
`validation` and `test` share words with training but no full name, so answers must be read. Figures are of one training
seed. The model has no use beyond showing and testing the framework.
"""
