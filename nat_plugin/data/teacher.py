"""A trained fairseq model that decodes sentences for sequence-level distillation."""

import logging
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from fairseq import checkpoint_utils, tasks, utils
from fairseq.data.data_utils import batch_by_size
from fairseq.dataclass.configs import GenerationConfig
from numpy.typing import NDArray
from omegaconf import OmegaConf, open_dict

from nat_plugin.data.distillation import Search
from plugin_common.errors import UserError

log = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "bf16"]
_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Teacher:
    """One model or an ensemble with its task, ready to decode.

    Args:
        paths: checkpoints of one task and one pair of languages.
        data_bin: folder whose dictionaries the models were trained with.
        languages: source and target.
        named: the pair in the names of the data-bin's files, None if there are several. A checkpoint trained without
            ``--source-lang`` and ``--target-lang`` does not tell its direction: fairseq took it from such names.

    Raises:
        UserError: a checkpoint that is missing or damaged, of another direction or dictionary, or a one-pass model.
    """

    def __init__(
        self,
        paths: Sequence[str],
        data_bin: str,
        languages: tuple[str, str],
        search: Search,
        *,
        named: tuple[str, str] | None = None,
        precision: Precision = "fp32",
        cpu: bool = False,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
        generation = OmegaConf.structured(GenerationConfig(**asdict(search)))
        self.models, self.task = _load_ensemble(paths, data_bin, languages, named)
        for model in self.models:
            model.to(device=self.device, dtype=_TYPES.get(precision)).eval()
            model.prepare_for_inference_(OmegaConf.create({"generation": generation}))
        self.generator: Any = self.task.build_generator(self.models, generation)
        self._stripped: set[int] = getattr(self.generator, "symbols_to_strip_from_output", {self.generator.eos})

    @property
    def longest_source(self) -> int:
        """Tokens of the longest source that task and models read, ``</s>`` included."""
        limits = utils.resolve_max_positions(
            self.task.max_positions(), *[model.max_positions() for model in self.models]
        )
        return int(limits[0] if isinstance(limits, tuple) else limits)

    def load_subset(self, subset: str) -> Any:
        """The task's data set of a subset."""
        self.task.load_dataset(subset)
        return self.task.dataset(subset)

    def decode(self, dataset: Any, indices: Sequence[int]) -> list[str]:
        """The best hypothesis of each sentence, as tokens joined by spaces, in the order of ``indices``."""
        sample = dataset.collater([dataset[i] for i in indices])
        if self.device.type == "cuda":
            sample = utils.move_to_cuda(sample)
        try:
            hypotheses = self.task.inference_step(self.generator, self.models, sample)
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(
                f"the GPU's memory does not suffice for {len(indices)} sentences at once; give a smaller --batch-size "
                "or --max-tokens: what is decoded is kept, the same command goes on from there"
            ) from error
        found = {
            int(index): self._text(best[0]["tokens"]) if best else ""
            for index, best in zip(sample["id"].tolist(), hypotheses, strict=True)
        }
        return [found[int(i)] for i in indices]

    def _text(self, tokens: torch.Tensor) -> str:
        return self.task.target_dictionary.string(tokens.tolist(), extra_symbols_to_ignore=self._stripped)


def _load_ensemble(
    paths: Sequence[str], data_bin: str, languages: tuple[str, str], named: tuple[str, str] | None
) -> tuple[list[Any], Any]:
    """``(models, the task of the first)``."""
    models: list[Any] = []
    task = None
    for path in paths:
        state = checkpoint_utils.load_checkpoint_to_cpu(path)
        own = _task_settings(path, state)
        if problem := _why_no_teacher(own, languages, named):
            raise UserError(f"--path {path}: {problem}")
        if None in _direction(own) and named is None:
            log.warning(
                "--path %s: its direction is unknown: it was trained without --source-lang and --target-lang, and %s "
                "holds several pairs of languages; it is taken to translate %s to %s: check the first lines it writes",
                path, data_bin, *languages,
            )  # fmt: skip
        if task is None:
            _override(own, data_bin, languages)
            task = tasks.setup_task(own, from_checkpoint=True)
        models.append(_build(path, state, task, data_bin))
    return models, task


def _build(path: str, state: dict[str, Any], task: Any, data_bin: str) -> Any:
    state["args"] = None  # older checkpoints' own form of the settings, which would go before cfg
    try:
        (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([path], task=task, state=state)
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        sizes = f"{len(task.source_dictionary):,} and {len(task.target_dictionary):,} symbols"
        raise UserError(
            f"--path {path}: does not fit the dictionaries of {data_bin} ({sizes}); give the data-bin that it was "
            f"trained on, or one made with its dict files ({str(error).strip().splitlines()[-1].strip()})"
        ) from error
    return model


def _task_settings(path: str, state: dict[str, Any]) -> Any:
    cfg = state.get("cfg")
    if "model" not in state or cfg is None or "task" not in cfg or cfg.task is None:
        raise UserError(f"--path {path}: not a checkpoint of fairseq-train (it has no model or no settings)")
    return cfg.task


def _direction(own: Any) -> tuple[str | None, str | None]:
    """Source and target of a checkpoint's task settings; None where fairseq-train was not told."""
    return own.get("source_lang"), own.get("target_lang")


def _why_no_teacher(own: Any, languages: tuple[str, str], named: tuple[str, str] | None) -> str:
    """What keeps a checkpoint with these task settings from being the teacher, or nothing."""
    name = own.get("_name")
    if getattr(tasks.TASK_REGISTRY.get(name), "translates_in_one_pass", False):
        return (
            f"a one-pass model (task {name}); distilled targets come from an autoregressive one, "
            "for example of fairseq-train --task translation --arch transformer"
        )
    if name not in tasks.TASK_REGISTRY:
        return f"its task {name} is not known; give the folder of its plugin as --user-dir"
    trained = _direction(own)
    if None in trained:
        if named is not None and named != languages:
            return (
                f"was trained without --source-lang and --target-lang, so its direction is known only from the names "
                f"of the data-bin's files ({named[0]} to {named[1]}); asked for is {languages[0]} to {languages[1]}. "
                "Leave --source-lang and --target-lang out; a teacher of the other direction needs a DATA_BIN that "
                f"fairseq-preprocess made with --source-lang {languages[0]} --target-lang {languages[1]}"
            )
    elif trained != languages:
        return (
            f"translates {trained[0]} to {trained[1]}, asked for is {languages[0]} to {languages[1]}; "
            "check --path, --source-lang and --target-lang"
        )
    return ""


def _override(task: Any, data_bin: str, languages: tuple[str, str]) -> None:
    """Let a checkpoint's task read the corpus as it is: no sentence cut, repeated or padded to buckets."""
    values = {
        "data": data_bin, "source_lang": languages[0], "target_lang": languages[1], "eval_bleu": False,
        "truncate_source": False, "load_alignments": False, "num_batch_buckets": 0,
    }  # fmt: skip
    with open_dict(task):
        for name, value in values.items():
            task[name] = value


def register(user_dir: str | None) -> None:
    """Make this project's and the user's fairseq components known.

    Raises:
        UserError: ``user_dir`` cannot be imported.
    """
    import nat_plugin

    nat_plugin.register()
    if user_dir is None:
        return
    try:
        utils.import_user_module(Namespace(user_dir=user_dir))
    except (ImportError, OSError) as error:
        raise UserError(f"--user-dir {user_dir}: cannot be imported ({error}); give the folder of a package") from error


def batches(
    order: NDArray[np.int64], sizes: NDArray[np.int64], *, max_tokens: int, batch_size: int
) -> list[NDArray[np.int64]]:
    """Cut ``order`` into batches.

    Args:
        order: ``[M]`` sentences, neighbours of like length.
        sizes: ``[N]`` source tokens of every sentence of the corpus.
        max_tokens: most source tokens of a batch, padding included; batch_size: most sentences.

    Raises:
        UserError: a sentence alone has more than ``max_tokens``.
    """
    if not len(order):
        return []
    own = sizes[order].astype(np.int64)
    if own.max() > max_tokens:
        raise UserError(
            f"--max-tokens {max_tokens} is less than the longest source has (sentence {int(order[own.argmax()])} "
            f"from 0, {int(own.max())} tokens); give at least that many"
        )
    cut = batch_by_size(order, num_tokens_fn=None, num_tokens_vec=own, max_tokens=max_tokens, max_sentences=batch_size)
    made = [np.asarray(batch, dtype=np.int64) for batch in cut]
    if sum(map(len, made)) != len(order):
        raise RuntimeError(f"{len(order)} sentences became {sum(map(len, made))} in batches")
    return made


def longest_first(indices: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """``indices`` by falling source length, so that what does not fit the memory shows at once; ties by index."""
    return indices[np.argsort(-sizes[indices].astype(np.int64), kind="stable")]


def outstanding(cut: Sequence[NDArray[np.int64]], missing: NDArray[np.bool_]) -> Iterator[list[int]]:
    """Of each batch the sentences for which ``missing`` ``[N]`` is true; batches without any are left out.

    Batches are cut from all sentences and thinned afterwards, so that a continued run makes the ones that an
    uninterrupted run would have made.
    """
    for batch in cut:
        rest = batch[missing[batch]]
        if len(rest):
            yield rest.tolist()


def checkpoint_names(paths: Sequence[str]) -> list[Path]:
    """The files of ``--path a:b``; raises ``UserError`` naming all that are missing."""
    from plugin_common.errors import raise_all

    raise_all(
        f"--path {path}: no such checkpoint; `ls {Path(path).parent}` shows what is there"
        for path in paths
        if not Path(path).is_file()
    )
    return [Path(path) for path in paths]
