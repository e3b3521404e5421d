from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.data import data_utils
from fairseq.logging import metrics
from torch import Tensor

import nat_plugin

nat_plugin.register()

from nat_plugin.criterions.ctc_nat_loss import CtcNatLoss  # noqa: E402
from nat_plugin.models.upsamplers import UPSAMPLERS, Upsampler  # noqa: E402
from tests.toy import sentences, toy_dictionary, translate  # noqa: E402

PAD, MASK = 1, toy_dictionary().index("<mask>")


def batch_of(count: int = 12) -> dict[str, Any]:
    """Toy sentences as TranslationDataset collates them; the last is infeasible, the one before has no target."""
    dictionary, sources = toy_dictionary(), sentences(count, 4)
    targets = [translate(line) for line in sources]
    targets[-2:] = ["", "W1 " * 40]
    rows = [
        [dictionary.encode_line(line, add_if_not_exist=False, append_eos=True).long() for line in side]
        for side in (sources, targets)
    ]
    source, target = (data_utils.collate_tokens(side, PAD) for side in rows)
    return {"net_input": {"src_tokens": source, "src_lengths": source.ne(PAD).sum(1)}, "target": target}


class Watched(CtcNatLoss):
    """Remembers what it revealed."""

    def reveal(self, *args: Any, **kwargs: Any) -> Tensor:
        """As the criterion's."""
        self.revealed = super().reveal(*args, **kwargs)
        return self.revealed


def criterion_with(task: Any, share: float) -> Watched:
    return Watched(task, sentence_avg=False, ctc_chunk_rows=0, glancing_start=share, glancing_end=share)


def trained_once(model: Any, criterion: CtcNatLoss) -> tuple[Tensor, dict[str, Any], list[Tensor], Tensor]:
    """Loss, log, gradients and torch's random state after a pass in training mode."""
    model.train()
    model.zero_grad()
    torch.manual_seed(11)
    loss, _, log = criterion(model, batch_of())
    loss.backward()
    return loss.detach(), log, [parameter.grad.clone() for parameter in model.parameters()], torch.get_rng_state()


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("options", [{}, {"random_positions": True}], ids=["", "random positions"])
def test_where_nothing_is_revealed_the_update_is_as_without_bit_for_bit(
    new_model: Callable[..., tuple[Any, Any]], options: dict[str, Any]
) -> None:
    model, task = new_model(seed=2, **options)
    plain = trained_once(model, CtcNatLoss(task, sentence_avg=False, ctc_chunk_rows=0))
    off, hardly = criterion_with(task, 0.0), criterion_with(task, 1e-9)
    for criterion in (off, hardly):
        loss, log, gradients, state = trained_once(model, criterion)
        assert torch.equal(loss, plain[0])
        assert same(gradients, plain[2])
        assert torch.equal(state, plain[3]), "what comes after (the next batch) draws the same numbers, too"
        assert {name: log[name] for name in plain[1]} == plain[1]
    assert not hasattr(off, "revealed"), "no extra pass"
    assert int(log["glanced"]) == 0
    assert "glanced" not in plain[1]


@pytest.mark.parametrize("options", [{}, {"random_positions": True}], ids=["", "random positions"])
def test_the_gradient_is_that_of_the_second_pass_alone(
    new_model: Callable[..., tuple[Any, Any]], options: dict[str, Any]
) -> None:
    model, task = new_model(seed=2, dropout=0.3, **options)
    passes: list[tuple[bool, bool]] = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append((torch.is_grad_enabled(), module.training)), with_kwargs=True
    )
    criterion = criterion_with(task, 1.0)
    loss, log, gradients, _ = trained_once(model, criterion)
    handle.remove()
    assert passes == [(False, True), (True, True)]
    assert int(log["glanced"]) == int((criterion.revealed >= 0).sum()) > 10

    plain = CtcNatLoss(task, sentence_avg=False, ctc_chunk_rows=0)
    model.zero_grad()
    batch, told = batch_of(), criterion.revealed
    batch["net_input"]["revealed"] = told
    torch.manual_seed(11)  # the same dropout: the first pass has left the generator as it was
    expected, _, _ = plain(model, batch)
    expected.backward()
    assert torch.equal(loss, expected.detach())
    assert same(gradients, [parameter.grad for parameter in model.parameters()])


@pytest.mark.parametrize("name", ["mask_insertion", "token_duplication"])
def test_revealed_labels_are_read_in_place_of_added_positions_only(
    new_model: Callable[..., tuple[Any, Any]], name: str
) -> None:
    model, task = new_model(seed=2, upsampler=name, dropout=0.0, attention_dropout=0.0)
    criterion = criterion_with(task, 1.0)
    trained_once(model, criterion)
    batch = batch_of()
    told = model(**batch["net_input"], revealed=criterion.revealed)
    chosen = criterion.revealed >= 0
    assert int(chosen.sum()) > 10
    assert not bool(chosen[-1].any()), "infeasible"
    assert not bool(chosen[-2].any()), "no target"
    if name == "mask_insertion":
        assert bool((told.upsampled[chosen] == MASK).all())
    else:
        assert not bool(chosen[:, 0::2].any()), "the first copy of each token stays"
    real = torch.arange(chosen.size(1)) < told.lengths[:, None]
    source = torch.where(real & ~chosen, told.upsampled, PAD)
    assert all(
        set(row[row > 3].tolist()) - {MASK} >= set(tokens[tokens > 3].tolist())
        for row, tokens in zip(source, batch["net_input"]["src_tokens"], strict=True)
    ), "every source token can still be read"

    # A model of ratio 1 with the same weights that is given these very tokens.
    straight, _ = new_model(seed=2, upsample_ratio=1.0, dropout=0.0, attention_dropout=0.0)
    tokens = torch.where(chosen, criterion.revealed, told.upsampled)
    expected = straight.train()(src_tokens=tokens, src_lengths=told.lengths)
    torch.testing.assert_close(told.hidden[real], expected.hidden[real], rtol=0, atol=1e-6)


def test_validation_never_glances(new_model: Callable[..., tuple[Any, Any]]) -> None:
    model, task = new_model(seed=2)
    criterion = criterion_with(task, 1.0)
    loss, _, log = criterion(model.eval(), batch_of())
    expected, _, plain = CtcNatLoss(task, sentence_avg=False, ctc_chunk_rows=0)(model, batch_of())
    assert torch.equal(loss, expected)
    assert log == plain
    assert not hasattr(criterion, "revealed")


def test_the_share_follows_the_updates(new_model: Callable[..., tuple[Any, Any]]) -> None:
    model, task = new_model(seed=2)
    criterion = Watched(task, sentence_avg=False, ctc_chunk_rows=0, glancing_start=1.0, glancing_end=0.0, max_update=11)
    found = []
    for update in (0, 5, 10):
        criterion.set_num_updates(update)
        found.append(trained_once(model, criterion)[1].get("glanced"))
    assert int(found[0]) > int(found[1]) > 0
    assert found[2] is None


def test_the_logged_share_is_of_all_positions(new_model: Callable[..., tuple[Any, Any]]) -> None:
    model, task = new_model(seed=2)
    log = trained_once(model, criterion_with(task, 1.0))[1]
    with metrics.aggregate(new_root=True) as aggregator:
        CtcNatLoss.reduce_metrics([log, log | {"glanced": 0 * log["glanced"]}])
    logged = aggregator.get_smoothed_values()["glanced_pct"]
    assert logged == pytest.approx(50 * int(log["glanced"]) / int(log["positions"]), abs=6e-3)
    assert 0 < logged < 50


def test_up_samplers_of_ones_own_offer_masks_and_repeats() -> None:
    options = SimpleNamespace(upsample_ratio=2.0, mask_placement="right")
    tokens = torch.tensor([[5, 5, MASK, MASK, 6, 5], [7, 8, 8, 8, PAD, PAD]])
    own = Upsampler(options, mask=MASK, pad=PAD).added(tokens)
    assert own[:, :4].tolist() == [[False, True, True, True], [False, False, True, True]]
    assert own[0, 4:].tolist() == [False, False]
    masks = UPSAMPLERS["mask_insertion"](options, mask=MASK, pad=PAD).added(tokens)
    assert torch.equal(masks, tokens == MASK), "equal neighbours are the source's own"
