from __future__ import annotations

import pytest

from jade_graph.backbones.checks import check_prompt, check_sampling
from jade_graph.errors import BackboneError
from jade_graph.types import Sampling

ENDS = frozenset({0, 9})


@pytest.mark.parametrize(
    ("sampling", "code", "quoted"),
    [
        (Sampling(temperature=-0.1), "BACKBONE_SAMPLING", "-0.1"),
        (Sampling(temperature=float("nan")), "BACKBONE_SAMPLING", "nan"),
        (Sampling(temperature=float("inf")), "BACKBONE_SAMPLING", "inf"),
        (Sampling(top_p=0.0), "BACKBONE_SAMPLING", "0.0"),
        (Sampling(top_p=1.5), "BACKBONE_SAMPLING", "1.5"),
        (Sampling(max_new_tokens=0), "BACKBONE_SAMPLING", "0"),
        (Sampling(choices=()), "BACKBONE_CHOICES", "empty"),
        (Sampling(choices=((1, 2),)), "BACKBONE_CHOICES", "(1, 2)"),
        (Sampling(choices=((1, 9, 0),)), "BACKBONE_CHOICES", "(1, 9, 0)"),
        (Sampling(choices=((),)), "BACKBONE_CHOICES", "()"),
        (Sampling(max_new_tokens=2, choices=((1, 2, 0),)), "BACKBONE_CHOICES", "3 tokens"),
    ],
)
def test_what_names_no_distribution_is_refused(sampling: Sampling, code: str, quoted: str) -> None:
    with pytest.raises(BackboneError) as caught:
        check_sampling(sampling, ENDS)
    assert caught.value.error_code == code
    assert quoted in caught.value.message


def test_what_names_one_is_taken() -> None:
    check_sampling(Sampling(temperature=0, top_p=1, max_new_tokens=1), ENDS)
    check_sampling(Sampling(choices=((0,), (1, 9))), ENDS)


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ([], "BACKBONE_PROMPT"),
        ([1, 50], "BACKBONE_PROMPT"),
        ([-1], "BACKBONE_PROMPT"),
        ([1] * 7, "CONTEXT_OVERFLOW"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(prompt: list[int], code: str) -> None:
    with pytest.raises(BackboneError) as caught:
        check_prompt(prompt, Sampling(max_new_tokens=4), 10, 50)
    assert caught.value.error_code == code


def test_a_prompt_may_fill_the_context() -> None:
    check_prompt([49] * 6, Sampling(max_new_tokens=4), 10, 50)
