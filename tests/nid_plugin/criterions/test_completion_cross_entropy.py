"""The criterion on packed pairs against transformers' own loss, and what it logs."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.logging import metrics

from nid_plugin.causal_lm import source
from nid_plugin.causal_lm.lm import CausalLm
from nid_plugin.completion_dataset import CompletionDataset
from nid_plugin.criterions.completion_cross_entropy import CompletionCrossEntropy
from nid_plugin.formatting import Formatter, PairFormat
from nid_plugin.tokenized_pairs import TokenizedPairs, tokenize_pairs
from plugin_common.errors import UserError
from tests.toy_causal_lm import make_causal_lm, write_toy_pairs


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TokenizedPairs]:
    folder = tmp_path_factory.mktemp("toy")
    base = make_causal_lm(folder / "lm")
    formatter = Formatter(source.load_tokenizer(base), PairFormat(), "toy")
    return base, tokenize_pairs(str(write_toy_pairs(folder / "pairs.jsonl", 9)), formatter, cache=folder / "cache")


def _lm(base: Path) -> Any:
    return source.load_weights(base, source.read_config(base), dtype=torch.float32, attention="eager")


def _criterion(**options: Any) -> CompletionCrossEntropy:
    given = {"label_smoothing": 0.0, "chunk_rows": -1} | options
    return CompletionCrossEntropy(Namespace(target_dictionary=None), **given)


def _sample(pairs: TokenizedPairs, indices: list[int]) -> dict[str, Any]:
    dataset = CompletionDataset([(pairs, 1.0)], limit=256, shuffle=False, name="toy")
    return dataset.collater([dataset[index] for index in indices])


def _transformers_loss(base: Path, pairs: TokenizedPairs, indices: list[int]) -> torch.Tensor:
    """The sum over labels of what ``labels=`` gives, pair by pair; its gradient is left in the embedding."""
    lm = _lm(base)
    total = torch.zeros(())
    for index in indices:
        prompt, completion = (torch.from_numpy(np.asarray(x)) for x in (pairs.prompt(index), pairs.completion(index)))
        tokens = torch.cat([prompt, completion])[None]
        labels = torch.cat([torch.full_like(prompt, -100), completion])[None]
        total = total + lm(tokens, labels=labels).loss * len(completion)
    total.backward()
    gradient = lm.get_input_embeddings().weight.grad
    return torch.cat([total.detach().view(1), gradient.flatten()])


@pytest.mark.parametrize("attention", ["packed", "sdpa", "eager"])
@pytest.mark.parametrize("chunk_rows", [-1, 0, 7])
def test_is_transformers_own_loss_with_its_gradient(
    toy: tuple[Path, TokenizedPairs], attention: str, chunk_rows: int
) -> None:
    base, pairs = toy
    indices = [4, 0, 7, 2]
    model = CausalLm(_lm(base), attention)
    loss, size, log = _criterion(chunk_rows=chunk_rows)(_Adapter(model), _sample(pairs, indices))
    loss.backward()
    ours = torch.cat([loss.detach().view(1), model.lm.get_input_embeddings().weight.grad.flatten()])
    theirs = _transformers_loss(base, pairs, indices)
    torch.testing.assert_close(ours / size, theirs / size, rtol=1e-6, atol=1e-6)
    assert int(size) == sum(len(pairs.completion(index)) for index in indices)
    assert log["ntokens"] == sum(len(pairs.prompt(index)) + len(pairs.completion(index)) for index in indices)


class _Adapter(torch.nn.Module):
    """Names of arguments as the architecture has them."""

    def __init__(self, model: CausalLm) -> None:
        super().__init__()
        self.model = model

    def forward(self, src_tokens: Any, position_ids: Any, document_lengths: Any, positions: Any) -> Any:
        return self.model(src_tokens, position_ids, document_lengths, positions)


def test_workers_add_up_to_one_big_batch(toy: tuple[Path, TokenizedPairs]) -> None:
    base, pairs = toy
    model, criterion = _Adapter(CausalLm(_lm(base), "packed")), _criterion(label_smoothing=0.1)
    logs = [criterion(model, _sample(pairs, part))[2] for part in ([0, 1, 2], [3, 4, 5, 6, 7], [8])]
    (_, _, whole) = criterion(model, _sample(pairs, list(range(9))))
    shown = []
    for outputs in (logs, [whole]):
        with metrics.aggregate(new_root=True) as meters:
            criterion.reduce_metrics(outputs)
        shown.append(meters.get_smoothed_values())
    assert shown[0] == pytest.approx(shown[1], abs=1e-3)
    assert shown[0]["nll_loss"] != shown[0]["loss"]
    assert shown[0]["ppl"] == pytest.approx(2 ** shown[0]["nll_loss"], rel=1e-2)


def test_no_labels_are_no_loss() -> None:
    with metrics.aggregate(new_root=True) as meters:
        CompletionCrossEntropy.reduce_metrics([{"loss": 0.0, "nll_loss": 0.0, "sample_size": 0}])
    assert meters.get_smoothed_values()["loss"] == 0.0


def test_options_that_cannot_be() -> None:
    with pytest.raises(UserError) as caught:
        _criterion(label_smoothing=1.0, chunk_rows=-2)
    assert "--label-smoothing 1.0" in str(caught.value)
    assert "--chunk-rows -2" in str(caught.value)
