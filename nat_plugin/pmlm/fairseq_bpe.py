"""``--bpe pmlm --pmlm-tokenizer FOLDER``: plain text in and out of fairseq-generate and fairseq-interactive."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.data.encoders import register_bpe
from fairseq.dataclass import FairseqDataclass

from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer
from plugin_common.errors import UserError


@dataclass
class PmlmBpeConfig(FairseqDataclass):
    """Options of ``--bpe pmlm``."""

    pmlm_tokenizer: Optional[str] = field(
        default=None, metadata={"help": "PMLM folder whose tokenizer turns text into pieces and back"}
    )


@register_bpe("pmlm", dataclass=PmlmBpeConfig)
class PmlmBpe:
    """The PMLM folder's tokenizer behind fairseq's encoder interface."""

    def __init__(self, cfg: PmlmBpeConfig) -> None:
        if cfg.pmlm_tokenizer is None:
            raise UserError("--bpe pmlm needs --pmlm-tokenizer FOLDER: the PMLM folder that tokenised the data")
        self.tokenizer = PieceTokenizer.from_folder(cfg.pmlm_tokenizer)

    def encode(self, x: str) -> str:
        """Text → pieces joined by spaces."""
        return self.tokenizer.encode(x)

    def decode(self, x: str) -> str:
        """Pieces joined by spaces → text."""
        return self.tokenizer.decode(x)
