from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fairseq.dataclass.configs import GenerationConfig

from nat_plugin.decoding.options import DecodingConfig, DecodingOptions, refuse_in_training
from plugin_common.errors import UserError

NewModel = Callable[..., tuple[Any, Any]]


def problems(*, cuda: bool = False, half: bool = False, **options: Any) -> list[str]:
    return list(DecodingOptions(**options).problems(cuda=cuda, half=half))


def decoding(new_model: NewModel, **options: Any) -> tuple[Any, Any]:
    """A model and its task with these options, which are of decoding and no training would take."""
    model, task = new_model()
    for name, value in options.items():
        assert hasattr(task.cfg, name)
        setattr(task.cfg, name, value)
    return model, task


def test_defaults_have_no_problem() -> None:
    assert DecodingOptions.from_options(DecodingConfig(), GenerationConfig(), bf16=False) == DecodingOptions()
    assert problems() == problems(cuda=True) == problems(half=True) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cuda_graphs": True}, "--cuda-graphs needs a CUDA GPU; leave it out, or run without --cpu on a machine that"),
        ({"cuda_graphs": True, "compile": True, "cuda": True}, "--cuda-graphs and --compile-decoder exclude each"),
        ({"bf16": True, "precision": "fp32"}, "--bf16 and --decode-precision fp32 exclude each other; leave one out"),
        ({"bf16": True, "precision": "auto"}, "--bf16 and --decode-precision auto exclude each other; leave one out"),
        ({"bf16": True, "half": True}, "--fp16 and --decode-precision bf16 (--bf16) exclude each other"),
        ({"precision": "fp32", "half": True}, "--fp16 and --decode-precision fp32 (--bf16) exclude each other"),
        ({"precision": "bf16", "half": True}, "--fp16 and --decode-precision bf16 (--bf16) exclude each other"),
        ({"precision": "auto", "half": True}, "--fp16 and --decode-precision auto (--bf16) exclude each other"),
        ({"beam": 0}, "--ctc-beam 0: expected 1 (greedy) or more prefixes"),
        ({"beam": 2, "candidates": 0}, "--ctc-candidates 0: expected 1 or more labels"),
        ({"beam": 2, "lm_weight": 0.3}, "--lm-weight 0.3 needs a language model: give --lm PATH"),
        ({"lm_weight": 0.3}, "--lm-weight 0.3 needs a language model: give --lm PATH"),
        ({"beam": 2, "lm": __file__}, "--lm has no effect without a weight; give one, e.g. --lm-weight 0.3"),
        ({"beam": 2, "lm": __file__, "lm_weight": -1.0}, "--lm-weight -1.0: expected a number of 0 or more"),
        ({"lm_weight": float("nan")}, "--lm-weight nan: expected a number of 0 or more"),
        ({"beam": 2, "lm_weight": float("nan")}, "--lm-weight nan: expected a number of 0 or more"),
        ({"beam": 2, "lm": __file__, "lm_weight": float("inf")}, "--lm-weight inf: expected a number of 0 or more"),
        ({"beam": 2, "token_bonus": float("nan")}, "--ctc-token-bonus nan: expected a finite number"),
        ({"token_bonus": float("inf")}, "--ctc-token-bonus inf: expected a finite number"),
        ({"blank_penalty": float("nan")}, "--ctc-blank-penalty nan: expected a finite number"),
        ({"beam": 2, "lm": "no/lm", "lm_weight": 1.0}, "--lm no/lm: no such file; make one with `nat ngram-lm`"),
        ({"lm": __file__, "lm_weight": 1.0}, "--lm has no effect without a beam; give one, e.g. --ctc-beam 5"),
        ({"token_bonus": 1.0}, "--ctc-token-bonus has no effect without a beam"),
        ({"candidates": 7}, "--ctc-candidates has no effect without a beam"),
    ],
)
def test_each_problem_is_told(options: dict[str, Any], message: str) -> None:
    (found,) = problems(**options)
    assert found.startswith(message)


def test_all_problems_are_told_at_once(new_model: NewModel) -> None:
    model, task = decoding(new_model, cuda_graphs=True, lm="no/lm")
    with pytest.raises(UserError, match="5 problems:") as caught:
        task.build_generator([model], GenerationConfig(nbest=2))
    for option in ("--nbest", "--cuda-graphs", "--lm no/lm", "without a weight", "without a beam"):
        assert option in str(caught.value)


def test_options_reach_the_generator(new_model: NewModel, tmp_path: Path) -> None:
    model, task = decoding(new_model, no_scores=True, ctc_beam=4, ctc_candidates=7, ctc_token_bonus=0.5)
    generator = task.build_generator([model], GenerationConfig())
    assert not generator.with_scores
    assert (generator.beam.beam, generator.beam.candidates, generator.beam.token_bonus) == (4, 7, 0.5)
    assert generator.beam.lm is None


def test_training_takes_none_of_them(new_model: NewModel) -> None:
    refuse_in_training(DecodingConfig())
    model, task = decoding(new_model, ctc_beam=4, decode_precision="bf16")
    for begin in (lambda: task.build_generator([model], Namespace()), lambda: task.build_model(model.cfg)):
        with pytest.raises(UserError, match="2 problems:") as caught:
            begin()
        for option in ("--ctc-beam", "--decode-precision"):
            assert f"{option} is for fairseq-generate and fairseq-interactive" in str(caught.value)


def test_models_from_checkpoints_decode_with_them(new_model: NewModel) -> None:
    model, task = decoding(new_model, ctc_beam=4, decode_precision="bf16")
    loaded = task.build_model(model.cfg, from_checkpoint=True)
    assert task.build_generator([loaded], GenerationConfig()).beam.beam == 4


@pytest.mark.parametrize(("given", "wanted"), [(None, None), ("fp32", "fp32"), ("bf16", "bf16"), ("auto", "auto")])
def test_what_precision_is_asked_for(given: str | None, wanted: str | None) -> None:
    task = DecodingConfig(decode_precision=given)
    assert DecodingOptions.from_options(task, GenerationConfig(), bf16=False).wanted_precision == wanted
    assert DecodingOptions.from_options(task, GenerationConfig(), bf16=True).wanted_precision == "bf16"


def test_validation_leaves_the_model_alone(new_model: NewModel) -> None:
    model, task = new_model()
    before = {name: (parameter.dtype, parameter.data_ptr()) for name, parameter in model.named_parameters()}
    kinds = [type(module) for module in model.modules()]
    assert not task.build_generator([model], Namespace()).with_scores
    assert {name: (parameter.dtype, parameter.data_ptr()) for name, parameter in model.named_parameters()} == before
    assert [type(module) for module in model.modules()] == kinds
