"""Hyper-parameters as texts: typed as PPOConfig declares them, refused where they are none."""

from __future__ import annotations

from typing import Any

import pytest

from jade_graph.errors import ConfigError, UsageError
from jade_training.improve.settings import PPO
from jade_training.overrides import overridden
from jade_training.ppo import Lora, PPOConfig


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("kl_coef=0.02", "kl_coef", 0.02),
        ("epochs=3", "epochs", 3),
        ("bf16=false", "bf16", False),
        ("betas=0.9,0.999", "betas", (0.9, 0.999)),
        ("plan_halflife=none", "plan_halflife", None),
        (" estimator = rloo ", "estimator", "rloo"),
        ("entropy_coef=0.01", "entropy_coef", 0.01),
        ("entropy_coef.PL=0.01", "entropy_coef", {"PL": 0.01}),
        ("ratio.PL=sequence", "ratio", {"PL": "sequence"}),
        ("lora.rank=8", "lora", Lora(8, 32)),
        ("lora.targets=q_proj", "lora", Lora(16, 32, ("q_proj",))),
        ("lora.targets=q_proj,v_proj", "lora", Lora(16, 32, ("q_proj", "v_proj"))),
    ],
)
def test_a_text_becomes_what_is_declared(text: str, name: str, value: Any) -> None:
    found = getattr(overridden(PPO, [text]), name)
    assert found == value
    assert type(found) is type(value)


def test_texts_add_up_and_what_they_do_not_name_stays() -> None:
    found = overridden(PPO, ["lora.rank=8", "lora.alpha=16", "role_weights.PL=2", "role_weights.AG=0.5"])
    assert found.lora == Lora(8, 16)
    assert found.role_weights == {"PL": 2.0, "AG": 0.5}
    assert overridden(found, ["lora=none", "role_weights.AG=1"]) == PPOConfig(
        **{**PPO.as_dict(), "role_weights": {"PL": 2.0, "AG": 1.0}}
    )
    assert overridden(PPO, []) == PPO


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("kl_ceof=0.1", "UNKNOWN_HYPERPARAMETER", "kl_coef"),
        ("lora.rnak=8", "UNKNOWN_HYPERPARAMETER", "rank"),
        ("clip", "HYPERPARAMETER", "clip=0.2"),
        ("clip.PL=0.1", "HYPERPARAMETER", "clip=0.2"),
        ("seed=3", "HYPERPARAMETER", "--seed"),
    ],
)
def test_what_is_no_hyper_parameter_is_refused(text: str, code: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        overridden(PPO, [text], elsewhere={"seed": "--seed"})
    assert refused.value.error_code == code
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "text", ["clip=wide", "clip=-1", "epochs=1.5", "estimator=best", "lora.rank=low", "betas=0.9", "bf16="]
)
def test_a_value_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"CONFIG_VALUE.*{text.partition('.')[0].partition('=')[0]}"):
        overridden(PPO, [text])
