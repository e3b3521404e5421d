"""``--task ctc_nat``: translation in one pass. A thin layer over fairseq's translation task."""

import logging
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
import torch
from fairseq import utils
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from torch import Tensor

from nat_plugin.decoding.ctc_generator import CtcGenerator, check_ensemble
from nat_plugin.decoding.options import DecodingConfig, DecodingOptions, refuse_in_training
from nat_plugin.decoding.preparation import prepare_models
from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer
from nat_plugin.tasks.data_checks import check_data_folder, check_targets, report_long_sources
from nat_plugin.tasks.pmlm_loading import check_dictionary, fill_in, load_weights
from nat_plugin.tasks.translation_dataset import TranslationDataset, line_list
from nat_plugin.tasks.validation_bleu import log_bleu_of_empty_hypotheses
from plugin_common.errors import UserError, raise_all
from plugin_common.stand_in_batches import StandInsCountForNothing

logger = logging.getLogger(__name__)

_LEFT_TO_RIGHT_ONLY = {
    "score_reference": False,
    "prefix_size": 0,
    "constraints": None,
    "sampling": False,
    "lm_path": None,
    "diverse_beam_groups": -1,
    "match_source_len": False,
    "replace_unk": None,
    "print_alignment": None,
    "retain_dropout": False,
    "nbest": 1,
}


@dataclass
class CtcNatConfig(DecodingConfig, TranslationConfig):
    """Options of the task: those of fairseq's ``translation``, of decoding in one pass, and a few of its own."""

    left_pad_source: bool = field(default=False, metadata={"help": "must stay False: positions count from the left"})
    pmlm_tokenizer: Optional[str] = field(
        default=None,
        metadata={"help": "PMLM folder; with --eval-bleu, validation BLEU is that of detokenised text"},
    )
    impossible_targets: ChoiceEnum(["error", "keep"]) = field(  # type: ignore[valid-type]
        default="error",
        metadata={
            "help": "targets longer than any up-sampled source can be: stop and name their lines (error), or keep "
            "them, counted as infeasible and without loss (default: error)"
        },
    )


@register_task("ctc_nat", dataclass=CtcNatConfig)
class CtcNatTask(StandInsCountForNothing, TranslationTask):
    """Every sentence of every split is seen: none is dropped at the end of a batch list or for its length."""

    cfg: CtcNatConfig
    translates_in_one_pass = True  # the models ask for it

    def __init__(self, cfg: CtcNatConfig, src_dict: Any, tgt_dict: Any) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self._models: list[Any] = []
        self.new_model: Any = None
        self._targets_are_scored = False
        self._interactive_lines = 0
        self._detokenizer: PieceTokenizer | None = None

    # ---- setting up -------------------------------------------------------------------------------------------------

    @classmethod
    def setup_task(cls, cfg: CtcNatConfig, **kwargs: Any) -> "CtcNatTask":
        """Load the dictionary that both languages share."""
        check_data_folder(cfg)
        task: CtcNatTask = super().setup_task(cfg, **kwargs)
        if task.src_dict.symbols != task.tgt_dict.symbols:
            raise UserError(
                f"{cfg.data}: dict.{cfg.source_lang}.txt and dict.{cfg.target_lang}.txt differ; source and target "
                "share the LM's vocabulary: preprocess with --srcdict and --tgtdict set to the PMLM folder's dict.txt"
            )
        return task

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Fill in what the checkpoint must carry, build the model, and load the PMLM's weights for a new one.

        A model that is not from a checkpoint is one to train.
        """
        symbols = self.tgt_dict.symbols
        if cfg._name != "ctc_pmlm" and not str(cfg._name).startswith("ctc_"):
            raise UserError(f"--task ctc_nat trains the architectures ctc_*, not {cfg._name}; give --arch ctc_pmlm")
        if from_checkpoint:
            check_dictionary(symbols, cfg.get("dictionary_digest"))
        else:
            refuse_in_training(self.cfg)
            fill_in(cfg, symbols)
        model = super().build_model(cfg, from_checkpoint)
        if not from_checkpoint and cfg.pmlm is not None and not cfg.random_init:
            load_weights(model.masked_lm, cfg.pmlm)
        if not from_checkpoint:
            self.new_model = model
        self._models.append(model)
        return model

    def check_checkpoint_settings(self, settings: Mapping[str, Any]) -> None:
        """A checkpoint to continue from must be of the same dictionary (its size alone says little)."""
        check_dictionary(self.tgt_dict.symbols, settings.get("dictionary_digest"))

    def build_criterion(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """From now on targets matter: datasets loaded later are checked for ones that no source can carry."""
        self._targets_are_scored = True
        return super().build_criterion(cfg, from_checkpoint)

    # ---- data -------------------------------------------------------------------------------------------------------

    @property
    def max_source(self) -> int:
        """The longest source, ``</s>`` included, that all models can read."""
        limits = [model.max_upsampled + 1 for model in self._models]
        return min([self.cfg.max_source_positions, *limits])

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a split; over-long sources are cut, impossible targets refused or counted, each with its lines."""
        try:
            super().load_dataset(split, epoch, combine, **kwargs)
        except FileNotFoundError as error:
            raise UserError(f"{self.cfg.data}: {error}; run fairseq-preprocess first, or check --gen-subset") from error
        except AssertionError as error:
            raise UserError(
                f"{self.cfg.data}: the {self.cfg.source_lang} and {self.cfg.target_lang} sides of {split} do not have "
                "the same number of sentences; make both from files of the same line count (`nat tokenize` checks it)"
            ) from error
        pairs = self.datasets[split]
        report_long_sources(split, pairs.src_sizes, self.max_source)
        if self._targets_are_scored and self._models and pairs.tgt_sizes is not None:
            model = self._models[-1]
            check_targets(
                split,
                pairs.src_sizes,
                pairs.tgt_sizes,
                ratio=model.cfg.upsample_ratio,
                most=model.max_upsampled,
                keep=str(self.cfg.impossible_targets) == "keep",
            )
        self.datasets[split] = TranslationDataset.from_pairs(pairs, max_source=self.max_source)

    def build_dataset_for_inference(
        self, src_tokens: list[Tensor], src_lengths: list[int], constraints: Any = None
    ) -> TranslationDataset:
        """Right-padded sources; over-long ones are cut with a warning that names their input line."""
        if constraints is not None:
            raise UserError("--constraints needs a left-to-right model; leave it out with --task ctc_nat")
        first, sizes = self._interactive_lines + 1, np.array([len(tokens) for tokens in src_tokens], dtype=np.int64)
        self._interactive_lines += len(src_tokens)
        for index in np.flatnonzero(sizes > self.max_source):
            logger.warning(
                "input line %d has %d tokens; only the first %d are translated",
                first + index, sizes[index] - 1, self.max_source - 1,
            )  # fmt: skip
        cut = [t if n <= self.max_source else _cut(t, self.max_source) for t, n in zip(src_tokens, sizes, strict=True)]
        dataset = TranslationDataset(
            cut,
            np.minimum(sizes, self.max_source),
            self.src_dict,
            tgt_dict=self.tgt_dict,
            left_pad_source=False,
            shuffle=False,
            input_feeding=False,
        )
        dataset.first_line, dataset.interactive = first, True
        return dataset

    def get_batch_iterator(self, dataset: Any, max_tokens: int | None = None, **kwargs: Any) -> Any:
        """As fairseq's, after making sure that the longest sentence fits ``max_tokens`` (raised for typed lines)."""
        if max_tokens is not None and len(dataset):
            tokens = dataset.num_tokens_vec(np.arange(len(dataset)))
            long = np.flatnonzero(tokens > max_tokens)
            if len(long) and dataset.interactive:
                logger.warning(
                    "--max-tokens %d is less than these input lines have, which form batches of their own: %s",
                    max_tokens, line_list(long, dataset.first_line),
                )  # fmt: skip
                max_tokens = int(tokens.max())
            elif len(long):
                raise UserError(
                    f"--max-tokens {max_tokens} is less than the longest sentence has ({int(tokens.max())} tokens, "
                    f"{line_list(long, dataset.first_line)}); raise --max-tokens (for validation: --max-tokens-valid)"
                )
        iterator = super().get_batch_iterator(dataset, max_tokens=max_tokens, **kwargs)
        # Each epoch has an iterator of its own. Workers that wait for a second use of it are found by the garbage
        # collector in the end, which waits 5 seconds for each of them.
        iterator.persistent_workers = False
        return iterator

    def max_positions(self) -> None:
        """None: sentences are cut or refused by name, never filtered."""
        return

    # ---- training ---------------------------------------------------------------------------------------------------

    def train_step(
        self,
        sample: dict[str, Any],
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        *more: Any,
        **named: Any,
    ) -> tuple[Tensor, Any, dict[str, Any]]:
        """As fairseq's; tells the criterion how many updates are done."""
        if hasattr(criterion, "set_num_updates"):
            criterion.set_num_updates(update_num)
        return super().train_step(sample, model, criterion, optimizer, update_num, *more, **named)

    # ---- decoding ---------------------------------------------------------------------------------------------------

    def build_generator(
        self,
        models: list[Any],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> CtcGenerator:
        """The one-pass generator; options that only a left-to-right model can follow are refused, all at once.

        For fairseq-generate and -interactive the models are converted as the options say, once and for all. For
        validation in training, which passes a ``Namespace``, they stay as they are.
        """
        refused = [
            f"--{name.replace('_', '-')} needs a left-to-right model; leave it out with --task ctc_nat"
            for name, off in _LEFT_TO_RIGHT_ONLY.items()
            if getattr(args, name, off) not in (off, None, False)
        ]
        if isinstance(args, Namespace):
            raise_all(refused)
            refuse_in_training(self.cfg)
            check_ensemble(models)
            return CtcGenerator(self.tgt_dict, with_scores=False)
        weight = models[0].masked_lm.weight
        options = DecodingOptions.from_options(self.cfg, args, bf16=any(model.asked_for_bf16 for model in models))
        raise_all([*refused, *options.problems(cuda=weight.is_cuda, half=weight.dtype == torch.float16)])
        check_ensemble(models)
        beam = options.beam_options(self.tgt_dict.symbols)
        prepare_models(models, precision=options.wanted_precision, compile=options.compile)
        return CtcGenerator(
            self.tgt_dict,
            with_scores=options.with_scores,
            beam=beam,
            cuda_graphs=options.cuda_graphs,
            blank_penalty=options.blank_penalty,
        )

    def _inference_with_bleu(self, generator: CtcGenerator, sample: dict[str, Any], model: Any) -> Any:
        if self.cfg.pmlm_tokenizer is None:
            return super()._inference_with_bleu(generator, sample, model)
        import sacrebleu

        hypotheses = [self._plain_text(h[0]["tokens"]) for h in self.inference_step(generator, [model], sample)]
        references = [self._plain_text(utils.strip_pad(row, self.tgt_dict.pad())) for row in sample["target"]]
        if self.cfg.eval_bleu_print_samples:
            logger.info("example hypothesis: %s", hypotheses[0])
            logger.info("example reference: %s", references[0])
        tokenize = {"tokenize": "none"} if self.cfg.eval_tokenized_bleu else {}
        return sacrebleu.corpus_bleu(hypotheses, [references], **tokenize)

    def _plain_text(self, tokens: Tensor) -> str:
        if self._detokenizer is None:
            assert self.cfg.pmlm_tokenizer is not None
            self._detokenizer = PieceTokenizer.from_folder(self.cfg.pmlm_tokenizer)
        return self._detokenizer.decode(self.tgt_dict.string(tokens.int().cpu()))

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """As fairseq's; BLEU is 0 (not absent) while all hypotheses are empty, which is usual early in CTC training."""
        super().reduce_metrics(logging_outputs, criterion)
        log_bleu_of_empty_hypotheses(logging_outputs)


def _cut(tokens: Tensor, length: int) -> Tensor:
    """The first ``length - 1`` tokens and the last one, ``</s>``."""
    return torch.cat([tokens[: length - 1], tokens[-1:]])
