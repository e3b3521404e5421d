"""``--task completion_sft``: a causal LM learns completions of prompts. A thin layer over fairseq's tasks."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.tasks import FairseqTask, register_task
from omegaconf import II, open_dict
from torch import Tensor

from nid_plugin.causal_lm import source
from nid_plugin.causal_lm.lm import config_from_json, config_to_json
from nid_plugin.completion_dataset import CompletionDataset, PromptDataset
from nid_plugin.decoding.causal_lm_generator import CausalLmGenerator
from nid_plugin.decoding.options import GenerationOptions
from nid_plugin.formatting import Formatter, PairFormat
from nid_plugin.models.hf_causal_lm import check_options
from nid_plugin.tasks.pair_files import WeightedFile, files_of_split, numbered_splits, parse_files
from nid_plugin.tasks.token_vocabulary import TokenVocabulary, unescaped
from nid_plugin.tokenized_pairs import TokenizedPairs, tokenize_pairs
from plugin_common.errors import UserError, raise_all
from plugin_common.stand_in_batches import StandInsCountForNothing

logger = logging.getLogger(__name__)

# What a training cannot change when it goes on, as settings of the model, and what they are called.
_TRAINING_SETTINGS = {
    "tuning": "kind of training",
    "base_fingerprint": "base model",
    "trained_format": "format of pairs",
    "lora_alpha": "--lora-alpha",
}


@dataclass
class CompletionSftConfig(FairseqDataclass):
    """Options of the task."""

    data: Optional[str] = field(
        default=None, metadata={"help": "folder with train.jsonl and valid.jsonl (.gz and .zst too), files of pairs"}
    )
    train_pairs: Optional[str] = field(
        default=None,
        metadata={
            "help": "files to train on instead, with commas between them; FILE@2.5: each pair of it 2.5 times an epoch"
        },
    )
    valid_pairs: Optional[str] = field(
        default=None, metadata={"help": "files to validate on instead of valid.jsonl, with commas between them"}
    )
    pair_format: Optional[ChoiceEnum(["plain", "chat", "template"])] = field(  # type: ignore[valid-type]
        default=None,
        metadata={
            "help": "how a pair becomes a text: prompt and completion joined (plain), the tokenizer's chat template "
            "(chat), or --pair-template; default: plain, or what the checkpoint was trained with"
        },
    )
    pair_template: Optional[str] = field(
        default=None, metadata={"help": "text file with {prompt} and, behind it, {completion}; --pair-format template"}
    )
    pair_seam: Optional[ChoiceEnum(["space", "as-is"])] = field(  # type: ignore[valid-type]
        default=None,
        metadata={
            "help": "plain: one space between prompt and completion where neither brings white space (space, the "
            "default), or joined as they stand, for texts cut inside words (as-is)"
        },
    )
    tokens_per_pair: Optional[int] = field(
        default=None,
        metadata={
            "help": "most tokens of a pair; of longer ones the prompt loses its beginning, then the completion its end "
            "(default: the model's positions, at most --max-tokens)"
        },
    )
    pair_cache: Optional[str] = field(
        default=None, metadata={"help": "keeps tokenised pairs (default: DATA/.tokenized)"}
    )
    max_tokens: Optional[int] = II("dataset.max_tokens")
    max_tokens_valid: Optional[int] = II("dataset.max_tokens_valid")
    max_len_b: int = II("generation.max_len_b")


@register_task("completion_sft", dataclass=CompletionSftConfig)
class CompletionSftTask(StandInsCountForNothing, FairseqTask):
    """Every pair of every split is seen. Format, base and its fingerprint travel in the checkpoint's model settings."""

    cfg: CompletionSftConfig
    completes_texts = True  # the model asks for it

    def __init__(self, cfg: CompletionSftConfig) -> None:
        super().__init__(cfg)
        self._formatter: Formatter | None = None
        self._ends: list[int] = []
        self._own_settings: dict[str, str] = {}
        self._prompts, self._completions = TokenVocabulary(), TokenVocabulary()
        self._positions = self._rows = 0
        self._beginning = -1
        self._scores_targets = self._trained = False
        self._typed_lines = 0

    # ---- setting up -------------------------------------------------------------------------------------------------

    @classmethod
    def setup_task(cls, cfg: CompletionSftConfig, **kwargs: Any) -> "CompletionSftTask":
        """The tokenizer comes with the model, see :meth:`build_model`."""
        return cls(cfg)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Open the base, complete the settings that a checkpoint must carry, and build the model."""
        if cfg._name != "hf_causal_lm":
            raise UserError(f"--task completion_sft trains the architecture hf_causal_lm, not {cfg._name}")
        from nid_plugin.models.hf_causal_lm import HfCausalLm

        self._trained = from_checkpoint
        folder = _base_of(cfg) if from_checkpoint else self._fill_in(cfg)
        with open_dict(cfg):
            cfg.model = str(folder)
        self._bind(folder, PairFormat.from_json(cfg.trained_format), cfg)
        return HfCausalLm.build_model(cfg, self, from_checkpoint=from_checkpoint)

    def _fill_in(self, cfg: Any) -> Path:
        check_options(cfg)
        folder = source.local_folder(cfg.model)
        config = source.read_config(folder)
        pair_format = PairFormat.from_options(
            str(self.cfg.pair_format or "plain"), self.cfg.pair_template, str(self.cfg.pair_seam or "space")
        )
        with open_dict(cfg):
            cfg.lm_config = config_to_json(config)
            cfg.base_fingerprint = source.fingerprint(folder)
            cfg.trained_format = pair_format.to_json()
        own = {name: str(cfg[name]) for name in _TRAINING_SETTINGS}
        if own["tuning"] == "full":  # the base's weights are replaced
            del own["base_fingerprint"], own["lora_alpha"]
        self._own_settings = own
        return folder

    def _bind(self, folder: Path, pair_format: PairFormat, cfg: Any) -> None:
        """Tokenizer and format of the model."""
        self._check_format(pair_format)
        config = config_from_json(cfg.lm_config)
        tokenizer = source.load_tokenizer(folder)
        formatter = self._formatter = Formatter(tokenizer, pair_format, str(folder))
        self._ends = list(dict.fromkeys([formatter.end_ids[-1], tokenizer.eos_token_id]))
        self._rows = int(config.vocab_size)
        self._beginning = self._ends[-1] if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        size = max(len(tokenizer), self._rows)

        def ids_of(text: str) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        self._prompts.bind(size, self._ends[0], text_of=tokenizer.decode, ids_of=ids_of)
        self._completions.bind(size, self._ends[0], text_of=formatter.completion_text, ids_of=ids_of)
        self._positions = source.positions(config)

    def _check_format(self, trained: PairFormat) -> None:
        """Options of the format that are given with a trained model must be those of its training."""
        options = {
            "--pair-format": (self.cfg.pair_format, trained.kind),
            "--pair-seam": (self.cfg.pair_seam, trained.seam),
        }
        raise_all(
            f"{option} {given}: the model was trained with {was}; leave it out"
            for option, (given, was) in options.items()
            if given is not None and str(given) != was
        )

    def check_checkpoint_settings(self, settings: Mapping[str, Any]) -> None:
        """A checkpoint to continue from must be of this base and format (shapes say little)."""
        raise_all(
            f"the checkpoint to continue from is of another {kind} ({settings[name]}; now {self._own_settings[name]}); "
            "continue with the options of its training, or choose another --save-dir"
            for name, kind in _TRAINING_SETTINGS.items()
            if name in self._own_settings and str(settings.get(name)) not in ("None", self._own_settings[name])
        )

    def build_criterion(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """From now on data are pairs to score; without a criterion they are prompts to complete."""
        self._scores_targets = True
        return super().build_criterion(cfg, from_checkpoint)

    @property
    def formatter(self) -> Formatter:
        """Of the model's tokenizer."""
        if self._formatter is None:
            raise UserError("--task completion_sft learns its tokenizer from the model: build or load the model first")
        return self._formatter

    @property
    def source_dictionary(self) -> TokenVocabulary:
        """The model's tokenizer: texts of prompts with the tokens around them."""
        return self._prompts

    @property
    def target_dictionary(self) -> TokenVocabulary:
        """The model's tokenizer: texts of completions."""
        return self._completions

    # ---- data -------------------------------------------------------------------------------------------------------

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, **kwargs: Any) -> None:
        """Pairs to score, packed; or, where no criterion was built, prompts to complete."""
        files = self._files(split, combine=combine)
        sources = [(self._tokenized(file), file.weight) for file in files]
        if self._scores_targets:
            self.datasets[split] = CompletionDataset(
                sources, limit=self._tokens_per_pair(split), shuffle=split == "train", name=split
            )
            return
        if len(sources) > 1:
            raise UserError(f"{split}: give one file of pairs to generate from")
        self.datasets[split] = PromptDataset(
            sources[0][0], limit=self._longest_prompt, pad=self._prompts.pad(), name=split
        )

    def _files(self, split: str, *, combine: bool) -> list[WeightedFile]:
        named = {"train": self.cfg.train_pairs, "valid": self.cfg.valid_pairs}.get(split)
        if named:
            option = f"--{split}-pairs"
            if self._trained and self._scores_targets and self.cfg.data:
                # fairseq-validate fills in the training's options for those that are not given.
                logger.warning(
                    "%s: reads %s %s (of the training, if not given now), nothing of %s; to read that, give %s with "
                    "its file", split, option, named, self.cfg.data, option,
                )  # fmt: skip
            return parse_files(named, option, weighted=split == "train")
        if not self.cfg.data:
            raise UserError("the data folder is missing: give the folder of train.jsonl and valid.jsonl")
        if combine and split == "valid":  # fairseq-train asks so for every training set, too
            return [
                file for name in numbered_splits(self.cfg.data, split) for file in files_of_split(self.cfg.data, name)
            ]
        return files_of_split(self.cfg.data, split)

    def _tokenized(self, file: WeightedFile) -> TokenizedPairs:
        cache = self.cfg.pair_cache or (str(Path(self.cfg.data) / ".tokenized") if self.cfg.data else None)
        pairs = tokenize_pairs(str(file.path), self.formatter, cache=Path(cache) if cache else None)
        self._check_id(pairs.vocabulary_top, str(file.path))
        return pairs

    def _check_id(self, token: int, where: str) -> None:
        if token >= self._rows:
            raise UserError(
                f"{where}: has {self._prompts.string([token])!r}, token {token} of the tokenizer, but the model has "
                f"embeddings for {self._rows} tokens only; add rows (resize_token_embeddings of transformers) and save "
                "it, or take the tokenizer that belongs to it"
            )

    def _tokens_per_pair(self, split: str) -> int:
        batch = self.cfg.max_tokens if split == "train" else self.cfg.max_tokens_valid or self.cfg.max_tokens
        asked = self.cfg.tokens_per_pair
        if asked is not None and asked > self._positions:
            raise UserError(f"--tokens-per-pair {asked}: more than the model's {self._positions} positions")
        if asked is not None and batch is not None and asked > batch:
            option = "--max-tokens" if split == "train" or batch == self.cfg.max_tokens else "--max-tokens-valid"
            raise UserError(f"--tokens-per-pair {asked}: more than {option} {batch}, so that such a pair fits no batch")
        return min(x for x in (asked, batch, self._positions) if x is not None)

    @property
    def _longest_prompt(self) -> int:
        """Tokens of a prompt that leave room for a completion of --max-len-b."""
        room = self._positions - self.cfg.max_len_b
        if room < 2:
            raise UserError(
                f"--max-len-b {self.cfg.max_len_b}: leaves no room for a prompt among the model's {self._positions} "
                "positions; lower it"
            )
        return room

    def get_batch_iterator(self, dataset: Any, **kwargs: Any) -> Any:
        """As fairseq's; each epoch has an iterator of its own."""
        iterator = super().get_batch_iterator(dataset, **kwargs)
        # Workers that wait for a second use of it are found by the garbage collector in the end, 5 seconds each.
        iterator.persistent_workers = False
        return iterator

    def get_interactive_tokens_and_lengths(self, lines: list[str], encode_fn: Any) -> tuple[list[Tensor], list[int]]:
        r"""One prompt a line, ``\n`` standing for a line feed; an empty one is the beginning of a text."""
        prompts = [unescaped(line) for line in lines]
        for number, prompt in enumerate(prompts, start=self._typed_lines + 1):
            if not prompt.strip():
                logger.warning("input line %d is empty; the model begins a text of its own", number)
        tokens = [ids or [self._beginning] for ids in self.formatter.prompt_ids(prompts)]
        for number, ids in enumerate(tokens, start=self._typed_lines + 1):
            self._check_id(max(ids), f"input line {number}")
        self._typed_lines += len(lines)
        return [torch.tensor(ids, dtype=torch.int64) for ids in tokens], [len(ids) for ids in tokens]

    def build_dataset_for_inference(
        self, src_tokens: list[Tensor], src_lengths: list[int], constraints: Any = None
    ) -> PromptDataset:
        """Prompts as typed; one too long loses its beginning, with a warning that names the line."""
        if constraints is not None:
            raise UserError("--constraints is not known to --task completion_sft; leave it out")
        first = self._typed_lines - len(src_tokens) + 1
        prompts = [ids.tolist() for ids in src_tokens]
        return PromptDataset(
            prompts,
            heads=[self.formatter.head_of(ids) for ids in prompts],
            limit=self._longest_prompt,
            pad=self._prompts.pad(),
            name="input",
            first_line=first,
        )

    def max_positions(self) -> None:
        """None: pairs and prompts are cut, never filtered."""
        return

    # ---- generation -------------------------------------------------------------------------------------------------

    def build_generator(
        self,
        models: list[Any],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> CausalLmGenerator:
        """transformers' ``generate`` under fairseq's options; those that it cannot follow are refused, all at once."""
        options = GenerationOptions.from_fairseq(args)
        return CausalLmGenerator(options, end_ids=self._ends, pad=self._prompts.pad(), positions=self._positions)


def _base_of(cfg: Any) -> Path:
    """The base of a checkpoint; of a fully fine-tuned one the tokenizer alone is taken."""
    known = cfg.base_fingerprint if str(cfg.tuning) == "lora" else None
    return source.base_of_checkpoint(cfg.model, known, hint="name it with --model-overrides \"{'model': 'FOLDER'}\"")
