"""Hyper-parameters as texts: typed as PPOConfig declares them, refused where they are none."""

from __future__ import annotations

from typing import Any

import pytest

from jade_graph.backbones import TINY
from jade_graph.errors import ConfigError, UsageError
from jade_training.cli.overrides import overridden
from jade_training.improve.settings import PPO
from jade_training.learner.ppo import Lora, PPOConfig
from jade_training.learner.trainer import PPOTrainer


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
        ("entropy_coef.AG=0.01", "entropy_coef", {"AG": 0.01}),
        ("ratio.QDS=sequence", "ratio", {"QDS": "sequence"}),
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
    found = overridden(PPO, ["lora.rank=8", "lora.alpha=16", "role_weights.QR=2", "role_weights.AG=0.5"])
    assert found.lora == Lora(8, 16)
    assert found.role_weights == {"QR": 2.0, "AG": 0.5}
    assert overridden(found, ["lora=none", "role_weights.AG=1"]) == PPOConfig(
        **{**PPO.as_dict(), "role_weights": {"QR": 2.0, "AG": 1.0}}
    )
    assert overridden(PPO, []) == PPO


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("kl_ceof=0.1", "UNKNOWN_HYPERPARAMETER", "kl_coef"),
        ("lora.rnak=8", "UNKNOWN_HYPERPARAMETER", "rank"),
        ("clip", "BAD_HYPERPARAMETER", "clip=0.2"),
        ("clip.AG=0.1", "BAD_HYPERPARAMETER", "clip=0.2"),
        ("clip.=0.1", "BAD_HYPERPARAMETER", "clip=0.2"),
        ("entropy_coef.=0.1", "BAD_HYPERPARAMETER", "entropy_coef=0.0"),
        ("role_weights.ag=2", "UNKNOWN_HYPERPARAMETER", "AG"),
        ("role_weights.PL=2", "BAD_HYPERPARAMETER", "plan_temperature=none"),
        ("credit=best", "UNKNOWN_CREDIT_MODE", "terminal_gae"),
        ("seed=3", "BAD_HYPERPARAMETER", "--seed"),
    ],
)
def test_what_is_no_hyper_parameter_is_refused(text: str, code: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        overridden(PPO, [text], elsewhere={"seed": "--seed"})
    assert refused.value.error_code == code
    assert says in str(refused.value)


def test_the_planner_has_settings_of_its_own_where_it_is_trained_as_the_others_are() -> None:
    found = overridden(PPO, ["entropy_coef.PL=0.01", "plan_temperature=none"])
    assert found.entropy_of("PL") == 0.01


WRONG = (
    "clip=wide", "clip=-1", "clip=nan", "epochs=1.5", "estimator=best", "lora.rank=low", "lora.rank=0", "lora.alpha=0",
    "betas=0.9", "betas=2,3", "bf16=", "plan_temperature=0", "plan_temperature=-1", "kl_coef=-1", "warmup=-1",
    "minibatch_rows=-5", "role_weights.AG=-1", "target_kl=0",
)  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_value_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"CONFIG_VALUE.*{text.partition('.')[0].partition('=')[0]}"):
        overridden(PPO, [text])


def test_adapters_of_modules_that_are_not_there_are_refused() -> None:
    with pytest.raises(UsageError, match=r"UNKNOWN_TARGET.*'q_prj'.*q_proj"):
        PPOTrainer(TINY, PPOConfig(lora=Lora(4, 8, ("q_prj",))), device="cpu")
