"""What an export needs of a checkpoint: the model, its settings, and a tokenizer of the same symbols."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nat_plugin.export.folder import PLACEMENTS, UPSAMPLERS, Settings
from nat_plugin.models.from_checkpoint import load_one_pass_model
from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer
from plugin_common import hf_folder
from plugin_common.dictionary_file import FAIRSEQ_SYMBOLS, read_dictionary
from plugin_common.errors import UserError
from plugin_common.hf_folder import DICTIONARY_FILE


@dataclass(frozen=True)
class Exportable:
    """A trained model with all that goes with it."""

    checkpoint: Path
    model: Any
    task: Any
    tokenizer: PieceTokenizer
    tokenizer_folder: Path
    updates: int | None = None

    @property
    def dictionary(self) -> Any:
        """Of both languages."""
        return self.task.target_dictionary

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target."""
        return self.task.cfg.source_lang, self.task.cfg.target_lang

    def settings(self) -> Settings:
        """For a stand-alone translator.

        Raises:
            UserError: the model up-samples in a way that such a translator does not know.
        """
        model, words = self.model, self.dictionary
        if model.cfg.upsampler not in UPSAMPLERS:
            raise UserError(
                f"{self.checkpoint}: was trained with --upsampler {model.cfg.upsampler}; a stand-alone translator "
                f"knows {' and '.join(UPSAMPLERS)}. --format hf exports the model without it"
            )
        placement = str(getattr(model.cfg.mask_placement, "value", model.cfg.mask_placement))
        assert placement in PLACEMENTS
        source, target = self.languages
        return Settings(
            symbols=len(words),
            bos=words.bos(),
            pad=words.pad(),
            eos=words.eos(),
            unk=words.unk(),
            mask=words.index("<mask>"),
            blank=model.blank,
            upsampler=model.cfg.upsampler,
            ratio=float(model.cfg.upsample_ratio),
            placement=placement,
            positions=model.max_upsampled,
            source_lang=source,
            target_lang=target,
        )


def open_checkpoint(
    checkpoint: str, data_bin: str, tokenizer_folder: str, languages: tuple[str, str] | None = None
) -> Exportable:
    """Load all parts and check that they belong together.

    Raises:
        UserError: a part is missing or damaged, or the tokenizer is of another dictionary.
    """
    folder = Path(tokenizer_folder)
    missing = [name for name in (hf_folder.TOKENIZER_FILE, DICTIONARY_FILE) if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"--pmlm-tokenizer {folder}: lacks {' and '.join(missing)}; give the PMLM folder that tokenised the "
            "training data"
        )
    tokenizer = PieceTokenizer.from_folder(folder)
    model, task, updates = load_one_pass_model(checkpoint, data_bin, languages)
    words = task.target_dictionary
    symbols = [*FAIRSEQ_SYMBOLS, *(symbol for symbol, _ in read_dictionary(folder / DICTIONARY_FILE))]
    if symbols != list(words.symbols):
        raise UserError(
            f"--pmlm-tokenizer {folder}: its dict.txt ({len(symbols)} symbols) is not the checkpoint's dictionary "
            f"({len(words)} symbols); give the PMLM folder that tokenised the training data"
        )
    return Exportable(Path(checkpoint), model.float(), task, tokenizer, folder, updates)
