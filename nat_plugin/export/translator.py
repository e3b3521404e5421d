"""Translate with an export folder; needs onnxruntime, tokenizers and numpy, neither torch nor fairseq."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path

import numpy as np

from nat_plugin.export.batches import emitting_positions, plan_runs, split_rows, within
from nat_plugin.export.folder import MAKE_IT, MODEL_FILES, TOKENIZER_FILE, ExportFolder, open_folder
from nat_plugin.export.session import CPU, Labels, OnnxModel, check_provider
from nat_plugin.export.upsampling import Upsampler
from nat_plugin.pmlm.piece_tokenizer import UNKNOWN_SHOWN, PieceTokenizer
from plugin_common.errors import UserError, raise_all

logger = logging.getLogger(__name__)

MAX_POSITIONS_PER_RUN = 400
"""Fastest on a CPU with a base-sized Transformer and 32,000 symbols, whose scores then stay in the cache."""

CANDIDATES = 20
WINDOW = 1024


@dataclass(frozen=True)
class Translation:
    """One line, translated.

    Attributes:
        text: the translation, always a single line.
        tokens: the pieces that the model emitted.
        score: natural-log probability of the most probable alignment (with a beam: of the alignments found) divided by
            the number of positions; 0 where there were none.
        token_scores: natural-log probability of each token at the first position that emits it.
        cut: the line had more tokens than the model has positions, and its end was not translated.
    """

    text: str
    tokens: list[str]
    score: float
    token_scores: list[float]
    cut: bool


@dataclass(frozen=True)
class _Output:
    """What the model makes of one source."""

    ids: np.ndarray
    score: float
    token_scores: np.ndarray


_NO_SCORES = np.zeros(0)
_NOTHING = _Output(np.zeros(0, dtype=np.int64), 0.0, _NO_SCORES)


class Translator:
    """A model exported by ``nat export``, ready to translate; several threads may use one at once.

    Args:
        folder: made by ``nat export``.
        precision: ``fp32`` or ``int8``; None takes int8 where the folder has it.
        threads: that one call may use; None for all cores.
        provider: an execution provider of the installed onnxruntime.
        max_positions_per_run: bound of sentences × longest up-sampled sentence in a run of the model.
        beam: 1 takes the most probable label at each position; with more, so many translations of each sentence are
            followed, see :mod:`nat_plugin.decoding.beam_search`. The arguments below need it.
        candidates: labels at each position that the search considers.
        lm: n-gram language model of the pieces: a file that ``nat ngram-lm`` or another program made.
        lm_weight: factor of the language model's natural-log probability.
        token_bonus: added for each token, in nats.
        checksums: compare the files' SHA-256 with what was exported; otherwise their sizes alone.

    Raises:
        UserError: the folder, a file in it or an argument is not usable; lists what is wrong and what to do.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        precision: str | None = None,
        threads: int | None = None,
        provider: str = CPU,
        max_positions_per_run: int = MAX_POSITIONS_PER_RUN,
        beam: int = 1,
        candidates: int = CANDIDATES,
        lm: str | Path | None = None,
        lm_weight: float = 0.0,
        token_bonus: float = 0.0,
        checksums: bool = True,
    ) -> None:
        raise_all(
            [
                *_argument_problems(precision, threads=threads, max_positions_per_run=max_positions_per_run),
                *_search_problems(beam, candidates, lm, lm_weight, token_bonus),
            ]
        )
        check_provider(provider)
        opened = open_folder(folder)
        self.settings = opened.settings
        self.precision = precision if precision is not None else _best_precision(opened)
        file = opened.model_file(self.precision)
        opened.check([file.name, TOKENIZER_FILE], checksums=checksums)
        self._tokenizer = _tokenizer(opened)
        self._parallel = threads != 1
        self._symbols = self._tokenizer.symbols
        self._symbols += [UNKNOWN_SHOWN] * (self.settings.symbols - len(self._symbols))
        self._search = None
        if beam != 1:
            from nat_plugin.export.search import Search

            self._search = Search(
                self.settings,
                self._symbols,
                beam=beam,
                candidates=candidates,
                lm=lm,
                lm_weight=lm_weight,
                token_bonus=token_bonus,
            )
        self._upsample = Upsampler(self.settings)
        self._model = OnnxModel(file, threads=threads, provider=provider)
        self._most_positions = max_positions_per_run

    def translate(self, lines: Sequence[str]) -> list[str]:
        """One translation for each line, in order; a line without text gives an empty one.

        Raises:
            UserError: a line holds a surrogate, which is no character (Python's ``surrogateescape`` makes them).
        """
        return [translation.text for translation in self.translate_numbered(lines)]

    def translate_with_scores(self, lines: Sequence[str]) -> list[Translation]:
        """As :meth:`translate`, with pieces and scores."""
        return self.translate_numbered(lines, scores=True)

    def translate_ids(self, sources: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Ids of the sources' pieces → ids that the model emits, int64 arrays, in order.

        Neither ``<s>`` nor ``</s>`` is put around them. A source longer than ``settings.positions`` is cut.
        """
        return [output.ids for output in self._run([source[: self.settings.positions] for source in sources])]

    def stream(self, lines: Iterable[str], *, window: int = WINDOW) -> Iterator[str]:
        """The translations of lines without end, in order: ``window`` lines are taken, translated, and given back."""
        raise_all(_not_positive(window=window))
        left = iter(lines)
        first_line = 1
        while taken := list(islice(left, window)):
            for translation in self.translate_numbered(taken, first_line=first_line):
                yield translation.text
            first_line += len(taken)

    def translate_numbered(
        self, lines: Sequence[str], *, first_line: int = 1, scores: bool = False
    ) -> list[Translation]:
        """As :meth:`translate_with_scores`, for a part of a text.

        Args:
            first_line: the number that warnings give the first line.
            scores: False saves the softmax; ``score`` is then 0 and ``token_scores`` empty.
        """
        sources = self._encode(lines, first_line)
        most = self.settings.positions
        for number, source in enumerate(sources, start=first_line):
            if len(source) > most:
                logger.warning(
                    "line %d has %s tokens; only the first %d are translated", number, f"{len(source):,}", most
                )
        outputs = self._run([source[:most] for source in sources], scores=scores)
        return [
            Translation(
                text=self._tokenizer.decode_ids(output.ids),
                tokens=[self._symbols[index] for index in output.ids.tolist()],
                score=output.score,
                token_scores=output.token_scores.tolist(),
                cut=len(source) > most,
            )
            for source, output in zip(sources, outputs, strict=True)
        ]

    def _encode(self, lines: Sequence[str], first_line: int) -> list[np.ndarray]:
        """The ids of each line, none of a line without text."""
        if isinstance(lines, str):
            raise TypeError("expected a list of lines, found one text; give [text]")
        texts = [line if line and not line.isspace() else "" for line in lines]
        try:
            return self._tokenizer.encode_ids(texts, parallel=self._parallel)
        except (TypeError, UnicodeEncodeError):  # the library's way to refuse surrogates depends on its version
            raise_all(_surrogates(texts, first_line))
            raise

    def _run(self, sources: Sequence[np.ndarray], *, scores: bool = False) -> list[_Output]:
        """What the model makes of sources that fit."""
        outputs = [_NOTHING] * len(sources)
        lengths = np.array([self._upsample.length(len(source)) for source in sources], dtype=np.int64)
        for places in plan_runs(lengths, self._most_positions):
            tokens, with_bos = self._upsample([sources[place] for place in places])
            if self._search is None:
                labels = self._model(tokens, with_bos, top=int(scores))
                decoded = _best_path(labels, with_bos - 1, self.settings.blank)
            else:
                labels = self._model(tokens, with_bos, top=self._search.candidates)
                decoded = self._search(labels, with_bos - 1)
            for place, output in zip(places, decoded, strict=True):
                outputs[place] = _Output(*output)
        return outputs


def _best_path(labels: Labels, lengths: np.ndarray, blank: int) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """The most probable label at each position, collapsed; with scores where ``labels`` holds log-probabilities."""
    emits = emitting_positions(labels.best, lengths, blank=blank)
    ids = split_rows(labels.best, emits)
    if not labels.log_probs.shape[2]:
        return [(row, 0.0, _NO_SCORES) for row in ids]
    log_probs = labels.log_probs[:, :, 0]
    means = np.where(within(lengths, log_probs.shape[1]), log_probs, 0).sum(axis=1, dtype=np.float64) / lengths
    return list(zip(ids, means.tolist(), split_rows(log_probs, emits), strict=True))


def _tokenizer(folder: ExportFolder) -> PieceTokenizer:
    """The folder's tokenizer, whose ids have to be the model's rows."""
    file = folder.path / TOKENIZER_FILE
    try:
        tokenizer = PieceTokenizer(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not a tokenizer that can be read ({error}); {MAKE_IT}") from error
    if tokenizer.highest_id >= folder.settings.symbols:
        raise UserError(
            f"{file}: gives ids up to {tokenizer.highest_id:,}, but the model has {folder.settings.symbols:,} symbols; "
            f"{MAKE_IT}"
        )
    return tokenizer


def _best_precision(folder: ExportFolder) -> str:
    return "int8" if "int8" in folder.precisions else "fp32"


def _argument_problems(precision: str | None, **counts: int | None) -> Iterator[str]:
    if precision is not None and precision not in MODEL_FILES:
        yield f"precision {precision}: expected one of {', '.join(MODEL_FILES)}"
    yield from _not_positive(**counts)


def _not_positive(**counts: int | None) -> Iterator[str]:
    for name, count in counts.items():
        if count is not None and (type(count) is not int or count < 1):
            yield f"{name.replace('_', ' ')} {count!r}: expected a whole number of at least 1"


def _search_problems(
    beam: int, candidates: int, lm: str | Path | None, lm_weight: float, token_bonus: float
) -> Iterator[str]:
    """What is wrong with the options of the beam search, by their names in Python; so are those of fairseq-generate."""
    yield from _not_positive(beam=beam, candidates=candidates)
    if lm is not None and not Path(lm).is_file():
        yield f"lm {lm}: no such file; make one with `nat ngram-lm`"
    if not 0 <= lm_weight < float("inf"):
        yield f"lm weight {lm_weight}: expected a number of 0 or more"
    elif lm is not None and lm_weight == 0:
        yield "lm: has no effect without a weight; give one, e.g. lm_weight=0.3 (--lm-weight 0.3)"
    elif lm is None and lm_weight:
        yield f"lm weight {lm_weight}: needs a language model; give lm=FILE (--lm FILE), or leave it out"
    if not isfinite(token_bonus):
        yield f"token bonus {token_bonus}: expected a finite number"
    if beam == 1:
        given = {"lm": lm is not None, "token bonus": token_bonus != 0, "candidates": candidates != CANDIDATES}
        yield from (
            f"{name}: has no effect without a beam; give one, e.g. beam=5 (--ctc-beam 5), or leave it out"
            for name, is_given in given.items()
            if is_given
        )


def _surrogates(lines: Sequence[str], first_line: int) -> Iterator[str]:
    for number, line in enumerate(lines, start=first_line):
        found = next((character for character in line if "\ud800" <= character <= "\udfff"), None)
        if found is not None:
            yield (
                f"line {number}: holds the surrogate U+{ord(found):04X}, which is no character; read the text as UTF-8 "
                "with errors='strict' or 'replace'"
            )
