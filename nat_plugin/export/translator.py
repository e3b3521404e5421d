"""Translate with an export folder; needs onnxruntime, tokenizers and numpy, neither torch nor fairseq."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from nat_plugin.export.arguments import (
    CANDIDATES,
    argument_problems,
    check_is_list,
    checked_lines,
    checked_sources,
    cores,
    count_problems,
    search_problems,
)
from nat_plugin.export.batches import emitting_positions, plan_runs, split_rows, within
from nat_plugin.export.folder import (
    MAKE_IT,
    SETTINGS_FILE,
    TOKENIZER_FILE,
    ExportFolder,
    metadata_of,
    open_folder,
)
from nat_plugin.export.session import CPU, Labels, OnnxModel, check_provider
from nat_plugin.export.upsampling import Upsampler
from nat_plugin.pmlm.piece_tokenizer import UNKNOWN_SHOWN, PieceTokenizer
from plugin_common.errors import UserError, raise_all

logger = logging.getLogger(__name__)

MAX_POSITIONS_PER_RUN = 400
"""Fastest on a CPU with a base-sized Transformer and 32,000 symbols, whose scores then stay in the cache."""

WINDOW = 1024

CHARACTERS_PER_POSITION = 64
"""What is read of a long line, of which the model takes no more than its positions; a piece has 3 to 5 characters."""

MOST_CUT_TOLD = 10
MOST_UNNAMED = 2**16
"""Symbols without a piece in the tokenizer; a vocabulary that is filled up to a round number has some."""
MOST_POSITIONS = 2**20


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


class CutLines:
    """Counts the lines whose end is not translated, and warns of the first ones."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, line: int, found: str) -> None:
        """One more: its number, how much it has, and how much of that is translated."""
        self.count += 1
        if self.count <= MOST_CUT_TOLD:
            logger.warning("line %d has %s translated", line, found)
        elif self.count == MOST_CUT_TOLD + 1:
            logger.warning("more lines are that long; they are cut without a message for each")


class Translator:
    """A model exported by ``nat export``, ready to translate; several threads may use one at once.

    Args:
        folder: made by ``nat export``.
        precision: ``fp32`` or ``int8``; None takes int8 where the folder has it.
        threads: that one call may use, at most 4 a core; None for all cores.
        provider: an execution provider of the installed onnxruntime.
        max_positions_per_run: bound of sentences × longest up-sampled sentence in a run of the model.
        beam: 1 takes the most probable label at each position; with more, so many translations of each sentence are
            followed, see :mod:`nat_plugin.decoding.beam_search`. The arguments below need it.
        candidates: labels at each position that the search considers, at most the model's symbols.
        lm: n-gram language model of the pieces: a file that ``nat ngram-lm`` or another program made.
        lm_weight: factor of the language model's natural-log probability.
        token_bonus: added for each token, in nats; a language model, which prefers short translations, wants one.
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
                *argument_problems(folder, precision, threads, max_positions_per_run),
                *search_problems(beam, candidates, lm, lm_weight, token_bonus),
            ]
        )
        check_provider(provider)
        opened = open_folder(folder)
        self.settings = opened.settings
        self.precision = precision if precision is not None else _best_precision(opened)
        file = opened.model_file(self.precision)
        opened.check([file.name, TOKENIZER_FILE], checksums=checksums)
        self._tokenizer = _tokenizer(opened)
        self._parallel = threads is None or threads >= cores()  # the library takes one thread, or all cores
        self._upsample = Upsampler(self.settings)
        self._model = OnnxModel(file, threads=threads, provider=provider)
        _check_same_export(opened, file.name, self._model.metadata)
        self._symbols = self._tokenizer.symbols
        self._symbols += [UNKNOWN_SHOWN] * (self.settings.symbols - len(self._symbols))
        self._search = None
        if beam != 1:
            from nat_plugin.export.search import Search

            self._search = Search(
                self.settings,
                self._symbols,
                beam=int(beam),
                candidates=int(candidates),
                lm=lm,
                lm_weight=float(lm_weight),
                token_bonus=float(token_bonus),
            )
        self._most_positions = int(max_positions_per_run)

    def translate(self, lines: Sequence[str]) -> list[str]:
        """One translation for each line, in order; a line without text gives an empty one.

        Raises:
            UserError: an item is no ``str``, or a line holds a surrogate, which is no character (Python's
                ``surrogateescape`` makes them).
        """
        return [translation.text for translation in self.translate_numbered(lines)]

    def translate_with_scores(self, lines: Sequence[str]) -> list[Translation]:
        """As :meth:`translate`, with pieces and scores."""
        return self.translate_numbered(lines, scores=True)

    def translate_ids(self, sources: Sequence[np.ndarray] | Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Ids of the sources' pieces → ids that the model emits, int64 arrays, in order.

        Neither ``<s>`` nor ``</s>`` is put around them. A source longer than ``settings.positions`` is cut.

        Raises:
            UserError: a source is no row of ids from 0 to ``settings.symbols - 1``.
        """
        rows = checked_sources(sources, self.settings.symbols)
        return [output.ids for output in self._run([row[: self.settings.positions] for row in rows])]

    def stream(self, lines: Iterable[str], *, window: int = WINDOW) -> Iterator[str]:
        """The translations of lines without end, in order: ``window`` lines are taken, translated, and given back."""
        raise_all(count_problems("window", window))
        check_is_list(lines, "lines")
        return self._stream(iter(lines), window)

    def _stream(self, lines: Iterator[str], window: int) -> Iterator[str]:
        cut = CutLines()
        first_line = 1
        while taken := list(islice(lines, window)):
            for translation in self.translate_numbered(taken, first_line=first_line, cut=cut):
                yield translation.text
            first_line += len(taken)

    def translate_numbered(
        self, lines: Sequence[str], *, first_line: int = 1, scores: bool = False, cut: CutLines | None = None
    ) -> list[Translation]:
        """As :meth:`translate_with_scores`, for a part of a text.

        Args:
            first_line: the number that warnings give the first line.
            scores: False saves the softmax; ``score`` is then 0 and ``token_scores`` empty.
            cut: what counts the lines that are cut, over all parts.
        """
        most_characters = CHARACTERS_PER_POSITION * self.settings.positions
        lines = [
            line if len(line) <= most_characters else line.rstrip()  # spaces at the end are nothing to cut
            for line in checked_lines(lines, first_line - 1)
        ]
        texts = [_beginning(line, most_characters) for line in lines]
        sources = self._encode(texts, first_line)
        most = self.settings.positions
        cut = CutLines() if cut is None else cut
        is_cut = [False] * len(lines)
        for place, (line, text, source) in enumerate(zip(lines, texts, sources, strict=True)):
            is_cut[place] = len(text) < len(line) or len(source) > most
            if len(text) < len(line):
                kept = min(len(source), most)
                cut.add(first_line + place, f"{len(line):,} characters; only the first {kept} tokens are")
            elif len(source) > most:
                cut.add(first_line + place, f"{len(source):,} tokens; only the first {most} are")
        outputs = self._run([source[:most] for source in sources], scores=scores)
        return [
            Translation(
                text=self._tokenizer.decode_ids(output.ids),
                tokens=[self._symbols[index] for index in output.ids.tolist()],
                score=output.score,
                token_scores=output.token_scores.tolist(),
                cut=value,
            )
            for output, value in zip(outputs, is_cut, strict=True)
        ]

    def _encode(self, lines: Sequence[str], first_line: int) -> list[np.ndarray]:
        """The ids of each line, none of a line without text."""
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


def _beginning(line: str, most: int) -> str:
    """As many characters of the line as can matter; the tokenizer takes 200 bytes of memory for each.

    Cut at a space if one is near, since what follows does not change the pieces of the words before it.
    """
    if len(line) <= most:
        return line
    space = line.rfind(" ", most // 2, most)
    return line[: most if space < 0 else space]


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
    symbols, positions = folder.settings.symbols, folder.settings.positions
    if tokenizer.highest_id >= symbols:
        raise UserError(
            f"{file}: gives ids up to {tokenizer.highest_id:,}, but the model has {symbols:,} symbols; {MAKE_IT}"
        )
    # Both are believed from here on, and memory is taken for as many.
    if symbols > len(tokenizer.symbols) + MOST_UNNAMED or positions > MOST_POSITIONS:
        raise UserError(
            f"{folder.path / SETTINGS_FILE}: {symbols:,} symbols and {positions:,} positions cannot be right, "
            f"{TOKENIZER_FILE} has {len(tokenizer.symbols):,} symbols; {MAKE_IT}"
        )
    return tokenizer


def _check_same_export(folder: ExportFolder, model: str, metadata: Mapping[str, str]) -> None:
    """Compare the settings with those that the model itself carries, where it carries any."""
    different = [
        f"{name.rpartition('.')[2]}: {value} and {metadata[name]}"
        for name, value in metadata_of(folder.settings).items()
        if metadata.get(name, value) != value
    ]
    if different:
        raise UserError(
            f"{folder.path}: {SETTINGS_FILE} and {model} do not belong together ({', '.join(different)}); {MAKE_IT}"
        )


def _best_precision(folder: ExportFolder) -> str:
    return "int8" if "int8" in folder.precisions else "fp32"


def _surrogates(lines: Sequence[str], first_line: int) -> Iterator[str]:
    for number, line in enumerate(lines, start=first_line):
        found = next((character for character in line if "\ud800" <= character <= "\udfff"), None)
        if found is not None:
            yield (
                f"line {number}: holds the surrogate U+{ord(found):04X}, which is no character; read the text as UTF-8 "
                "with errors='strict' or 'replace'"
            )
