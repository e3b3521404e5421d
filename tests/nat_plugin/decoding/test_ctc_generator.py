import math
from argparse import Namespace
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest
import torch
from torch import Tensor

from nat_plugin.decoding.beam_search import BeamOptions
from nat_plugin.decoding.ctc_generator import CtcGenerator
from plugin_common.errors import UserError

PAD, EOS = 1, 2
NewModel = Callable[..., tuple[Any, Any]]


def lively(model: Any) -> Any:
    """Weights that make neighbouring positions disagree, so that outputs have repeats, blanks and many tokens."""
    torch.manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def net_input(*lengths: int, seed: int = 9) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    tokens = torch.full((len(lengths), max(lengths) + 1), PAD)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = torch.randint(4, 60, (length,))
        row[length] = EOS
    return {"src_tokens": tokens, "src_lengths": torch.tensor(lengths) + 1}


def by_hand(models: list[Any], inputs: dict[str, Tensor], row: int) -> tuple[list[int], list[float], float]:
    """``(tokens with </s>, their scores, mean score of the positions)`` of one sentence, by plain Python."""
    with torch.no_grad():
        outputs = [model(**inputs) for model in models]
        log_probs = torch.stack(
            [m.get_normalized_probs(o, log_probs=True)[row] for m, o in zip(models, outputs, strict=True)]
        ).mean(0)[: int(outputs[0].lengths[row])]
    best = [(int(column.argmax()), float(column.max())) for column in log_probs]
    runs = [list(run) for _, run in groupby(best, key=lambda pair: pair[0])]
    kept = [run[0] for run in runs if run[0][0] != models[0].blank]
    mean = sum(score for _, score in best) / max(len(best), 1)
    return [token for token, _ in kept] + [EOS], [score for _, score in kept] + [0.0], mean


@pytest.mark.parametrize("blank", ["<s>", "<mask>"])
@pytest.mark.parametrize("count", [1, 2])
def test_tokens_and_scores_are_those_of_the_greedy_alignment(new_model: NewModel, blank: str, count: int) -> None:
    made = [new_model(seed=seed, blank_symbol=blank) for seed in range(count)]
    models = [lively(model) for model, _ in made]
    task = made[0][1]
    if blank == "<s>":  # an untrained model hardly ever emits the blank by itself
        for model in models:
            model.masked_lm.bias.data[model.blank] += 1.5
    inputs = net_input(7, 0, 12, 3)
    hypotheses = CtcGenerator(task.tgt_dict).generate(models, {"net_input": inputs})
    assert len(hypotheses) == 4
    assert max(len(hypothesis[0]["tokens"]) for hypothesis in hypotheses) > 5
    for row, (hypothesis,) in enumerate(hypotheses):
        tokens, scores, mean = by_hand(models, inputs, row)
        assert hypothesis["tokens"].tolist() == tokens
        assert hypothesis["positional_scores"].tolist() == pytest.approx(scores, abs=1e-5)
        assert float(hypothesis["score"]) == pytest.approx(mean, abs=1e-5)
        assert hypothesis["alignment"] is None


def test_a_batch_of_one_translates_as_a_batch_of_many(new_model: NewModel) -> None:
    model, task = new_model()
    lively(model)
    generator = CtcGenerator(task.tgt_dict)
    lengths = [3, 9, 0, 1, 15, 6, 2, 11]
    inputs = net_input(*lengths)
    together = generator.generate([model], {"net_input": inputs})
    for row, length in enumerate(lengths):
        alone = {"src_tokens": inputs["src_tokens"][row : row + 1, : length + 1],
                 "src_lengths": inputs["src_lengths"][row : row + 1]}  # fmt: skip
        one = generator.generate([model], {"net_input": alone})[0][0]
        assert one["tokens"].tolist() == together[row][0]["tokens"].tolist()
        torch.testing.assert_close(one["positional_scores"], together[row][0]["positional_scores"], rtol=0, atol=1e-5)


def test_twice_the_same_model_is_the_model(new_model: NewModel) -> None:
    model, task = new_model()
    lively(model)
    generator = CtcGenerator(task.tgt_dict)
    sample = {"net_input": net_input(5, 8, 2)}
    for (one,), (two,) in zip(
        generator.generate([model], sample), generator.generate([model] * 2, sample), strict=True
    ):
        assert one["tokens"].tolist() == two["tokens"].tolist()
        assert float(one["score"]) == pytest.approx(float(two["score"]), abs=1e-6)


def test_only_empty_sources_give_empty_translations(new_model: NewModel) -> None:
    model, task = new_model()
    for models in ([model], [model, model]):
        for (hypothesis,) in CtcGenerator(task.tgt_dict).generate(models, {"net_input": net_input(0, 0)}):
            assert hypothesis["tokens"].tolist() == [EOS]
            assert hypothesis["positional_scores"].tolist() == [0.0]
            assert float(hypothesis["score"]) == 0.0


def test_without_scores_the_tokens_are_the_same(new_model: NewModel) -> None:
    model, task = new_model()
    lively(model)
    sample = {"net_input": net_input(6, 3)}
    scored = CtcGenerator(task.tgt_dict).generate([model], sample)
    unscored = CtcGenerator(task.tgt_dict, with_scores=False).generate([model], sample)
    for (one,), (other,) in zip(scored, unscored, strict=True):
        assert one["tokens"].tolist() == other["tokens"].tolist()
        assert float(other["score"]) == 0.0
        assert not other["positional_scores"].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_finite_log_probabilities(new_model: NewModel, dtype: torch.dtype) -> None:
    model, task = new_model()
    for models in ([model.to(dtype)], [model, model]):
        for (hypothesis,) in CtcGenerator(task.tgt_dict).generate(models, {"net_input": net_input(6, 0)}):
            assert hypothesis["positional_scores"].dtype == torch.float32
            assert math.isfinite(float(hypothesis["score"]))
            assert float(hypothesis["score"]) <= 0


def test_scores_can_be_changed_in_place_and_the_model_is_not_trained_on(new_model: NewModel) -> None:
    model, task = new_model()
    model.train()
    (hypothesis,) = CtcGenerator(task.tgt_dict).generate([model], {"net_input": net_input(4)})[0]
    hypothesis["positional_scores"].div_(math.log(2))
    assert not model.training
    assert not hypothesis["positional_scores"].requires_grad


@pytest.mark.parametrize("beam", [None, BeamOptions(beam=3)])
def test_without_any_blank_each_position_emits_a_label(new_model: NewModel, beam: BeamOptions | None) -> None:
    model, task = new_model()
    lively(model)
    dictionary, inputs = task.target_dictionary, net_input(5, 3, 1)
    words = {
        penalty: [
            len(found[0]["tokens"])
            for found in CtcGenerator(dictionary, beam=beam, blank_penalty=penalty).generate(
                [model], {"net_input": inputs}
            )
        ]
        for penalty in (-1e4, 0.0, 1e4)
    }
    assert words[-1e4] == [1, 1, 1]  # </s> alone
    assert all(few <= more for few, more in zip(words[0.0], words[1e4], strict=True))
    assert min(words[1e4]) > 1


def test_special_symbols_are_stripped_from_the_text(new_model: NewModel) -> None:
    _, task = new_model()
    assert CtcGenerator(task.tgt_dict).symbols_to_strip_from_output == {0, 1, 2}


def test_prefixes_and_constraints_are_refused(new_model: NewModel) -> None:
    model, task = new_model()
    generator, sample = CtcGenerator(task.tgt_dict), {"net_input": net_input(4)}
    for wrong in ({"prefix_tokens": torch.zeros(1, 1)}, {"constraints": torch.zeros(1, 1)}):
        with pytest.raises(UserError, match=r"--prefix-size and --constraints need a left-to-right model"):
            generator.generate([model], sample, **wrong)


# ---- how the task builds it -----------------------------------------------------------------------------------------


def test_options_of_left_to_right_models_are_refused_all_at_once(new_model: NewModel) -> None:
    model, task = new_model()
    with pytest.raises(UserError) as caught:
        task.build_generator(
            [model], Namespace(score_reference=True, prefix_size=2, constraints="ordered", sampling=True, beam=5)
        )
    lines = str(caught.value).split("\n")
    assert lines[0] == "4 problems:"
    options = ("--score-reference", "--prefix-size", "--constraints", "--sampling")
    assert all(any(f"{option} needs a left-to-right model" in line for line in lines[1:]) for option in options)


def test_defaults_are_not_refused(new_model: NewModel) -> None:
    from fairseq.dataclass.configs import GenerationConfig

    model, task = new_model()
    assert task.build_generator([model], GenerationConfig()).with_scores
    assert not task.build_generator([model], Namespace(beam=4)).with_scores, "validation needs no scores"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blank_symbol": "<mask>"}, r"--blank-symbol of model 2 is <mask>, of model 1 <s>"),
        ({"upsample_ratio": 3.0}, r"--upsample-ratio of model 2 is 3.0, of model 1 2.0"),
        ({"upsampler": "token_duplication"}, r"--upsampler of model 2 is token_duplication, of model 1 mask_insertion"),
        ({"encoder_positions": 30}, r"the number of positions of model 2 is 29, of model 1 47"),
    ],
)
def test_models_with_other_positions_cannot_vote(new_model: NewModel, options: dict[str, Any], message: str) -> None:
    model, task = new_model()
    other, _ = new_model(**options)
    from fairseq.dataclass.configs import GenerationConfig

    with pytest.raises(UserError, match=message):
        task.build_generator([model, other], GenerationConfig())
    assert task.build_generator([model, new_model(seed=3, encoder_layers=1)[0]], GenerationConfig())
