"""``--task ctc_nat``: translation in one pass. A thin layer over fairseq's translation task."""

import logging
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from fairseq import utils
from fairseq.data import data_utils
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from fairseq.tasks import register_task
from fairseq.tasks.translation import EVAL_BLEU_ORDER, TranslationConfig, TranslationTask
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import open_dict
from torch import Tensor

from nat_plugin.decoding.ctc_generator import CtcGenerator
from nat_plugin.models.ctc_pmlm import CtcPmlmConfig
from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer
from nat_plugin.tasks.pmlm_loading import check_dictionary, configuration_json, dictionary_digest, load_weights
from nat_plugin.tasks.translation_dataset import TranslationDataset, line_list
from nat_plugin.upsampling import upsampled_lengths
from plugin_common.errors import UserError, raise_all

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
}


@dataclass
class CtcNatConfig(TranslationConfig):
    """Options of the task: those of fairseq's ``translation`` and a few of its own."""

    left_pad_source: bool = field(default=False, metadata={"help": "must stay False: positions count from the left"})
    pmlm_tokenizer: Optional[str] = field(
        default=None,
        metadata={"help": "PMLM folder; with --eval-bleu, validation BLEU is that of detokenised text"},
    )
    impossible_targets: ChoiceEnum(["error", "keep"]) = field(  # type: ignore[valid-type]
        default="error",
        metadata={
            "help": "targets longer than any up-sampled source can be: stop and name their lines, or keep them (they are "
            "counted as infeasible and add no loss)"
        },
    )


@register_task("ctc_nat", dataclass=CtcNatConfig)
class CtcNatTask(TranslationTask):
    """Every sentence of every split is seen: none is dropped at the end of a batch list or for its length."""

    cfg: CtcNatConfig

    def __init__(self, cfg: CtcNatConfig, src_dict: Any, tgt_dict: Any) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self._models: list[Any] = []
        self._targets_are_scored = False
        self._interactive_lines = 0
        self._detokenizer: PieceTokenizer | None = None

    # ---- setting up -------------------------------------------------------------------------------------------------

    @classmethod
    def setup_task(cls, cfg: CtcNatConfig, **kwargs: Any) -> "CtcNatTask":
        """Load the dictionary that both languages share."""
        _check_data_folder(cfg)
        task: CtcNatTask = super().setup_task(cfg, **kwargs)
        if task.src_dict.symbols != task.tgt_dict.symbols:
            raise UserError(
                f"{cfg.data}: dict.{cfg.source_lang}.txt and dict.{cfg.target_lang}.txt differ; source and target share "
                "the LM's vocabulary: preprocess with --srcdict and --tgtdict set to the PMLM folder's dict.txt"
            )
        return task

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Fill in what the checkpoint must carry, build the model, and load the PMLM's weights for a new one."""
        symbols = self.tgt_dict.symbols
        if cfg._name != "ctc_pmlm" and not str(cfg._name).startswith("ctc_"):
            raise UserError(f"--task ctc_nat trains the architectures ctc_*, not {cfg._name}; give --arch ctc_pmlm")
        if from_checkpoint:
            check_dictionary(symbols, cfg.dictionary_digest)
        else:
            _fill_in(cfg, symbols)
        model = super().build_model(cfg, from_checkpoint)
        if not from_checkpoint and cfg.pmlm is not None and not cfg.random_init:
            load_weights(model.masked_lm, cfg.pmlm)
        self._models.append(model)
        return model

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
        self._report_long_sources(split, pairs.src_sizes)
        if self._targets_are_scored and pairs.tgt_sizes is not None:
            self._check_targets(split, pairs.src_sizes, pairs.tgt_sizes)
        self.datasets[split] = TranslationDataset.from_pairs(pairs, max_source=self.max_source)

    def _report_long_sources(self, split: str, sizes: NDArray[np.int64]) -> None:
        long = np.flatnonzero(sizes > self.max_source)
        if len(long):
            logger.warning(
                "%s: %d of %d sources are longer than %d tokens and were cut there: %s",
                split, len(long), len(sizes), self.max_source - 1, line_list(long),
            )  # fmt: skip

    def _check_targets(self, split: str, src_sizes: NDArray[np.int64], tgt_sizes: NDArray[np.int64]) -> None:
        if not self._models:
            return
        most, ratio = self._models[-1].max_upsampled, self._models[-1].cfg.upsample_ratio
        sources = torch.from_numpy(np.minimum(src_sizes - 1, most).astype(np.int64))
        room = upsampled_lengths(sources, ratio, most).numpy()
        hopeless = np.flatnonzero(tgt_sizes - 1 > most)
        if len(hopeless) and str(self.cfg.impossible_targets) == "error":
            raise UserError(
                f"{split}: {len(hopeless)} target(s) have more than {most} tokens, the most that any up-sampled source "
                f"can carry: {line_list(hopeless)}; remove or split these lines, or pass --impossible-targets keep to "
                "train on the rest (they are counted as infeasible)"
            )
        tight = np.flatnonzero(tgt_sizes - 1 > room)
        if len(tight) == len(tgt_sizes) > 0:
            raise UserError(
                f"{split}: no target fits its source up-sampled {ratio} times, so nothing could be learnt; "
                "raise --upsample-ratio, or check that source and target belong together"
            )
        if len(tight):
            logger.warning(
                "%s: %d of %d targets (%.2f %%) do not fit their source up-sampled %s times and add no loss: %s",
                split, len(tight), len(tgt_sizes), 100 * len(tight) / len(tgt_sizes), ratio, line_list(tight),
            )  # fmt: skip

    def build_dataset_for_inference(
        self, src_tokens: list[Tensor], src_lengths: list[int], constraints: Any = None
    ) -> TranslationDataset:
        """Right-padded sources; over-long ones are cut with a warning that names their input line."""
        if constraints is not None:
            raise UserError("--constraints needs a left-to-right model; leave it out with --task ctc_nat")
        first, sizes = self._interactive_lines + 1, np.array([len(tokens) for tokens in src_tokens])
        self._interactive_lines += len(src_tokens)
        for index in np.flatnonzero(sizes > self.max_source):
            logger.warning(
                "input line %d has %d tokens; only the first %d are translated",
                first + index, sizes[index] - 1, self.max_source - 1,
            )  # fmt: skip
        eos = self.src_dict.eos()
        cut = [t if n <= self.max_source else _cut(t, self.max_source) for t, n in zip(src_tokens, sizes, strict=True)]
        return TranslationDataset(
            cut,
            np.minimum(sizes, self.max_source),
            self.src_dict,
            tgt_dict=self.tgt_dict,
            left_pad_source=False,
            shuffle=False,
            input_feeding=False,
        )

    def filter_indices_by_size(
        self, indices: NDArray[np.int64], dataset: Any, max_positions: Any = None, ignore_invalid_inputs: bool = False
    ) -> NDArray[np.int64]:
        """Sentences over ``--max-tokens`` would vanish here with a mere warning; they are an error instead."""
        kept, dropped = dataset.filter_indices_by_size(indices, max_positions)
        if len(dropped):
            raise UserError(
                f"{len(dropped)} sentence(s) do not fit a batch of {max_positions} tokens "
                f"({line_list(np.array(sorted(dropped)))}); raise --max-tokens"
            )
        return kept

    def get_batch_iterator(self, dataset: Any, max_tokens: int | None = None, **kwargs: Any) -> Any:
        """As fairseq's, after making sure that the longest sentence fits ``max_tokens``."""
        if max_tokens is not None and len(dataset):
            tokens = dataset.num_tokens_vec(np.arange(len(dataset)))
            long = np.flatnonzero(tokens > max_tokens)
            if len(long):
                raise UserError(
                    f"--max-tokens {max_tokens} is less than the longest sentence has ({int(tokens.max())} tokens, "
                    f"{line_list(long)}); raise --max-tokens (for validation: --max-tokens-valid)"
                )
        return super().get_batch_iterator(dataset, max_tokens=max_tokens, **kwargs)

    def max_positions(self) -> None:
        """None: sentences are cut or refused by name, never filtered."""
        return

    # ---- decoding ---------------------------------------------------------------------------------------------------

    def build_generator(
        self,
        models: list[Any],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> CtcGenerator:
        """The one-pass generator; options that only a left-to-right model can follow are refused, all at once."""
        raise_all(
            f"--{name.replace('_', '-')} needs a left-to-right model; leave it out with --task ctc_nat"
            for name, off in _LEFT_TO_RIGHT_ONLY.items()
            if getattr(args, name, off) not in (off, None, False)
        )
        return CtcGenerator(self.tgt_dict, with_scores=not isinstance(args, Namespace))

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
        scored = [log for log in logging_outputs if "_bleu_totals_0" in log]
        if scored and not any(float(log["_bleu_totals_0"]) > 0 for log in scored):
            zeros = np.zeros(EVAL_BLEU_ORDER, dtype=np.int64)
            metrics.log_scalar("_bleu_counts", zeros)
            metrics.log_scalar("_bleu_totals", zeros)
            metrics.log_scalar("_bleu_sys_len", 0)
            metrics.log_scalar("_bleu_ref_len", sum(float(log["_bleu_ref_len"]) for log in scored))
            metrics.log_derived("bleu", _bleu_of_counts)


def _cut(tokens: Tensor, length: int) -> Tensor:
    """The first ``length - 1`` tokens and the last one, ``</s>``."""
    return torch.cat([tokens[: length - 1], tokens[-1:]])


def _bleu_of_counts(meters: Any) -> float:
    """Corpus BLEU of the summed counts, 0 where no hypothesis has a word; the first function logged for a name stays."""
    from sacrebleu.metrics import BLEU

    total = np.asarray(meters["_bleu_totals"].sum)
    if total.max() == 0:
        return 0.0
    bleu = BLEU.compute_bleu(
        correct=np.asarray(meters["_bleu_counts"].sum).tolist(),
        total=total.tolist(),
        sys_len=int(meters["_bleu_sys_len"].sum),
        ref_len=int(meters["_bleu_ref_len"].sum),
        smooth_method="exp",
    )
    return round(bleu.score, 2)


def _fill_in(cfg: Any, symbols: list[str]) -> None:
    """Complete the model's configuration, which fairseq saves, with what a checkpoint must carry."""
    from nat_plugin.models.presets import PRESETS

    preset = PRESETS.get(cfg._name)
    with open_dict(cfg):
        if preset is not None and HydraConfig.initialized():
            # fairseq-hydra-train knows no presets: they fill in what still has its general default.
            for name, value in preset.defaults.items():
                if cfg.get(name) == getattr(CtcPmlmConfig, name):
                    cfg[name] = value
        if preset is not None and preset.hub_name is not None and cfg.pmlm is None and not cfg.random_init:
            cfg.pmlm = preset.hub_name
        cfg.pmlm_config = configuration_json(cfg, symbols)
        cfg.dictionary_digest = dictionary_digest(symbols)


def _check_data_folder(cfg: CtcNatConfig) -> None:
    if cfg.left_pad_source:
        raise UserError("--left-pad-source: ctc_nat counts positions from the left; leave the option out")
    if not cfg.data:
        raise UserError("the data folder is missing: give the --destdir of fairseq-preprocess as first argument")
    folder = Path(utils.split_paths(cfg.data)[0])
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the --destdir of fairseq-preprocess")
    source, target = cfg.source_lang, cfg.target_lang
    if source is None or target is None:
        source, target = data_utils.infer_language_pair(str(folder))
    if source is None or target is None:
        raise UserError(f"{folder}: no split.src-tgt.* file tells the languages; give --source-lang and --target-lang")
    raise_all(
        f"{folder / f'dict.{lang}.txt'} is missing; run fairseq-preprocess with --srcdict and --tgtdict"
        for lang in dict.fromkeys((source, target))
        if not (folder / f"dict.{lang}.txt").is_file()
    )
