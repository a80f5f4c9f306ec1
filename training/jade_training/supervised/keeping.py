"""The models on the way of a supervised run: a window of them, merged, stands for a rate that falls (WSM).

Invariant: a kept model is whole: written beside its place and moved there, before the checkpoint of its step, so that a
run that goes on has it or writes it again. Only the last ones stay.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jade_training.merging.kept import MODELS, kept_models


def keeping(out: Path, keep: int, every: int, save: Callable[[Path], None]) -> Any:
    """A callback of transformers' Trainer: `save` is called with a new folder after every `every`th step and the last.

    Args:
        keep: how many of the last models stay.
    """
    from transformers import TrainerCallback

    class Keeping(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            del args, control, rest
            step = int(state.global_step)
            if step % every and step != state.max_steps:
                return
            beside, place = out / MODELS / f".{step}", out / MODELS / str(step)
            for folder in (beside, place):
                shutil.rmtree(folder, ignore_errors=True)
            beside.mkdir(parents=True)
            save(beside)
            os.replace(beside, place)
            for old in kept_models(out)[:-keep]:
                shutil.rmtree(old)

    return Keeping()
