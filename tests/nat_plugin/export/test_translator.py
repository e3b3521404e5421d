import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nat_plugin import ctc
from nat_plugin.decoding.beam_search import BeamOptions
from nat_plugin.export import Translation, Translator
from nat_plugin.export.folder import open_folder, write_settings
from nat_plugin.export.translator import CANDIDATES
from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer
from nat_plugin.upsampling import insert_masks
from plugin_common.errors import UserError
from tests.toy_export import BLANK, POSITIONS, TEXT, random_model


@pytest.fixture(scope="module")
def fp32(exported: Path) -> Translator:
    return Translator(exported, precision="fp32", threads=1)


def lines(count: int, seed: int = 1) -> list[str]:
    """Lines of 0 to 30 characters that the tokenizer knows, and some that it does not."""
    draw = random.Random(seed)
    characters = sorted({*"".join(TEXT), "ß", "😀", "\u0301"})
    return ["".join(draw.choices(characters, k=draw.randrange(31))) for _ in range(count)]


def ids(count: int, seed: int = 1, longest: int = POSITIONS) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.integers(4, 113, draw.integers(0, longest + 1)) for _ in range(count)]


def torch_outputs(source: np.ndarray) -> tuple[list[int], float, list[float]]:
    """Ids, mean log-probability of the best path, and the tokens' log-probabilities, by the functions of training."""
    symbols = 114
    tokens, lengths = torch.from_numpy(source[None]), torch.tensor([len(source)])
    row, row_lengths = insert_masks(tokens, lengths, 2.0, mask=symbols - 1, pad=1, max_length=POSITIONS)
    model = random_model(symbols)
    with torch.inference_mode():
        hidden = model(torch.cat([torch.tensor([[0]]), row], 1), torch.ones(1, row.size(1) + 1, dtype=torch.bool))[
            :, 1:
        ]
        log_probs = torch.nn.functional.linear(hidden, model.weight, model.bias).log_softmax(-1)
    best, labels = log_probs.max(-1)
    found, _ = ctc.collapse(labels, row_lengths, blank=BLANK, pad=1)
    emits = ctc.emitting_positions(labels, row_lengths, blank=BLANK)
    return found[0].tolist(), best.mean().item(), best[emits].tolist()


def test_ids_are_those_of_the_functions_that_train(fp32: Translator) -> None:
    sources = [source for source in ids(12) if len(source)]
    found = fp32.translate_ids(sources)
    assert [row.tolist() for row in found] == [torch_outputs(source)[0] for source in sources]
    assert all(row.dtype == np.int64 for row in found)
    assert len({tuple(row) for row in found}) == len(sources)


def test_scores_are_natural_logarithms_of_the_best_path(fp32: Translator, exported: Path) -> None:
    tokenizer = PieceTokenizer.from_folder(exported)
    for line in TEXT[:3]:
        (found,) = fp32.translate_with_scores([line])
        (source,) = tokenizer.encode_ids([line])
        wanted, score, token_scores = torch_outputs(source[:POSITIONS])
        assert found.tokens == [tokenizer.symbols[index] for index in wanted]
        assert found.score == pytest.approx(score, abs=1e-4)
        assert found.token_scores == pytest.approx(token_scores, abs=1e-4)
        assert found.text == tokenizer.decode(" ".join(found.tokens)) == fp32.translate([line])[0]
        assert found.cut == (len(source) > POSITIONS)


@pytest.mark.parametrize("most", [1, 50, 400, 100_000])
def test_fp32_does_not_depend_on_the_other_lines(exported: Path, fp32: Translator, most: int) -> None:
    given = lines(60)
    whole = Translator(exported, precision="fp32", threads=1, max_positions_per_run=most).translate(given)
    assert whole == [fp32.translate([line])[0] for line in given]
    assert len(set(whole)) > 40


def test_lines_without_text_are_empty_and_run_nothing(fp32: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(fp32, "_model", fail)
    given = ["", " ", "   \t ", "\u3000\u00a0", "\u2028"]
    assert fp32.translate(given) == [""] * 5
    assert fp32.translate_with_scores([""]) == [Translation("", [], 0.0, [], False)]
    assert fp32.translate([]) == []
    assert fp32.translate_ids([np.zeros(0, dtype=np.int64)])[0].tolist() == []


def test_empty_lines_among_others_shift_nothing(fp32: Translator) -> None:
    given = [word for line in TEXT for word in ("", line, "  ")]
    found = fp32.translate(given)
    assert found[1::3] == fp32.translate(TEXT)
    assert set(found[::3] + found[2::3]) == {""}
    assert all(found[1::3])


def test_long_lines_are_cut_and_told(fp32: Translator, caplog: pytest.LogCaptureFixture) -> None:
    given = ["the dog", "a" * 3000, "", "e" * 46]
    with caplog.at_level(logging.WARNING):
        found = fp32.translate_with_scores(given)
    assert [translation.cut for translation in found] == [False, True, False, False]
    assert caplog.messages == [f"line 2 has 3,001 tokens; only the first {POSITIONS} are translated"]
    assert found[1].text == fp32.translate(["a" * (POSITIONS - 1)])[0]  # and the piece that begins a word


def test_ids_beyond_the_positions_are_cut(fp32: Translator) -> None:
    (source,) = ids(1, longest=3 * POSITIONS)
    source = np.resize(source, 3 * POSITIONS)
    assert fp32.translate_ids([source])[0].tolist() == fp32.translate_ids([source[:POSITIONS]])[0].tolist()


@pytest.mark.parametrize(
    "line", ["x" * 100_000, "the dog " * 12_500, " " * 100_000, "😀" * 50, "שלום hello مرحبا 12 ‮olleh"]
)
def test_odd_lines_give_one_line(fp32: Translator, line: str) -> None:
    (found,) = fp32.translate([line])
    assert "\n" not in found
    assert found == found.strip()


@pytest.mark.parametrize("window", [1, 7, 1024])
def test_stream_is_in_order_and_reads_no_further_than_its_window(fp32: Translator, window: int) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            yield given[taken % len(given)]
            taken += 1

    given = lines(20)
    translations = fp32.stream(endless(), window=window)
    wanted = fp32.translate(given)
    assert [next(translations) for _ in range(30)] == [wanted[k % 20] for k in range(30)]
    assert taken <= max(30 + window, 1024)
    assert list(fp32.stream(given, window=window)) == wanted
    assert list(fp32.stream([])) == []


def test_stream_counts_lines_through_its_windows(fp32: Translator, caplog: pytest.LogCaptureFixture) -> None:
    list(fp32.stream(["the", "dog", "e" * 60], window=2))
    assert caplog.messages == [f"line 3 has 61 tokens; only the first {POSITIONS} are translated"]


def test_several_threads_at_once(exported: Path) -> None:
    translator = Translator(exported, precision="fp32", threads=2)
    parts = [lines(25, seed) for seed in range(12)]
    wanted = [translator.translate(part) for part in parts]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(translator.translate, parts * 2)) == wanted * 2


def test_int8_is_taken_where_it_is_there(exported: Path, tmp_path: Path) -> None:
    translator = Translator(exported, threads=1)
    assert translator.precision == "int8"
    assert translator.settings == open_folder(exported).settings
    same = [
        a == b
        for a, b in zip(
            translator.translate(lines(40)), Translator(exported, precision="fp32").translate(lines(40)), strict=True
        )
    ]
    assert sum(same) > 10
    only = shutil.copytree(exported, tmp_path / "fp32 only")
    (only / "model.int8.onnx").unlink()
    write_settings(only, translator.settings, {})
    assert Translator(only).precision == "fp32"


def test_int8_one_sentence_a_run_does_not_depend_on_the_other_lines(exported: Path) -> None:
    translator = Translator(exported, precision="int8", threads=1, max_positions_per_run=1)
    given = lines(60)
    assert translator.translate(given) == [translator.translate([line])[0] for line in given]


def test_symbols_that_are_no_text_stay_out_of_it(fp32: Translator) -> None:
    """The random model emits some of them by itself."""
    emitted = {token for translation in fp32.translate_with_scores(lines(400, 3)) for token in translation.tokens}
    assert emitted & {"<pad>", "</s>", "<mask>"}
    text = "".join(fp32.translate(lines(400, 3)))
    assert not any(name in text for name in ("<s>", "<pad>", "</s>", "<mask>", "<unk>"))


def test_names_of_symbols_in_the_text_are_text(fp32: Translator) -> None:
    given = ["<mask>", "</s>", "<s> dog", "<unk>"]
    sources = fp32._encode(given, 1)
    special = {fp32.settings.mask, fp32.settings.eos, fp32.settings.bos, fp32.settings.pad}
    assert not special & {int(index) for source in sources for index in source}
    assert len(fp32.translate(given)) == 4


def test_surrogates_are_refused_by_line(fp32: Translator) -> None:
    with pytest.raises(UserError) as error:
        fp32.translate(["the", "dog \udcff", "\ud800"])
    assert "2 problems" in str(error.value)
    assert "line 2: holds the surrogate U+DCFF, which is no character" in str(error.value)
    assert "line 3: holds the surrogate U+D800" in str(error.value)


# ---- beam search ----------------------------------------------------------------------------------------------------


def test_a_beam_finds_translations_at_least_as_probable(exported: Path, fp32: Translator) -> None:
    given = [line for line in lines(20) if line.strip()]
    beam = Translator(exported, precision="fp32", threads=1, beam=8)
    found, greedy = beam.translate_with_scores(given), fp32.translate_with_scores(given)
    assert all(b.score >= g.score - 1e-5 for b, g in zip(found, greedy, strict=True))  # of more than one alignment
    assert beam.translate(given) == [translation.text for translation in found]
    assert all(len(translation.tokens) == len(translation.token_scores) for translation in found)
    assert beam.translate(["", " "]) == ["", ""]


def test_a_language_model_has_a_say(exported: Path, fp32: Translator, tmp_path: Path) -> None:
    """One that finds a single piece probable makes translations that hold it more often."""
    pieces = PieceTokenizer.from_folder(exported).symbols[4:-1]
    loved = max(pieces, key=lambda piece: sum(t.tokens.count(piece) for t in fp32.translate_with_scores(lines(40))))
    lm = tmp_path / "lm.arpa"
    rows = "".join(f"{-0.01 if piece == loved else -3}\t{piece}\n" for piece in pieces)
    lm.write_text(
        f"\\data\\\nngram 1={len(pieces) + 3}\n\n\\1-grams:\n-99\t<s>\n-3\t</s>\n-3\t<unk>\n{rows}\n\\end\\\n"
    )
    plain = Translator(exported, precision="fp32", threads=1, beam=4)
    with_lm = Translator(exported, precision="fp32", threads=1, beam=4, lm=lm, lm_weight=2.0, token_bonus=1.0)
    share = []
    for translator in (plain, with_lm):
        tokens = [token for translation in translator.translate_with_scores(lines(40)) for token in translation.tokens]
        share.append(tokens.count(loved) / len(tokens))
    assert share[1] > share[0]


def test_default_of_candidates_is_that_of_the_beam_search() -> None:
    assert BeamOptions(beam=1).candidates == CANDIDATES


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_all_wrong_arguments_are_told_at_once(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        Translator(
            exported, precision="fp16", threads=0, max_positions_per_run=0, lm=tmp_path / "no.arpa", lm_weight=-1.0,
            token_bonus=float("nan"),
        )  # fmt: skip
    message = str(error.value)
    for part in (
        "precision fp16: expected one of fp32, int8",
        "threads 0: expected a whole number of at least 1",
        "max positions per run 0",
        "no.arpa: no such file; make one with `nat ngram-lm`",
        "lm weight -1.0: expected a number of 0 or more",
        "token bonus nan: expected a finite number",
        "lm: has no effect without a beam; give one, e.g. beam=5 (--ctc-beam 5)",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "beam 0: expected"),
        ({"beam": 4, "candidates": 0}, "candidates 0: expected"),
        ({"candidates": 7}, "candidates: has no effect without a beam"),
        ({"beam": 4, "lm_weight": 0.5}, r"lm weight 0.5: needs a language model; give lm=FILE \(--lm FILE\)"),
        ({"beam": 4, "lm": __file__}, "lm: has no effect without a weight; give one, e.g. lm_weight=0.3"),
        ({"provider": "x"}, "provider x: not in this onnxruntime; available are"),
    ],
)
def test_wrong_argument(exported: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Translator(exported, **options)


def damaged(exported: Path, tmp_path: Path, damage: Callable[[Path], object]) -> Path:
    copy = shutil.copytree(exported, tmp_path / "copy")
    damage(copy)
    return copy


def test_altered_model_is_found_by_its_checksum(exported: Path, tmp_path: Path) -> None:
    def flip(folder: Path) -> None:
        content = bytearray((folder / "model.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "model.onnx").write_bytes(content)

    folder = damaged(exported, tmp_path, flip)
    with pytest.raises(UserError, match=r"model\.onnx: is not the file that was exported \(its SHA-256 differs\)"):
        Translator(folder, precision="fp32")
    Translator(folder, precision="int8")  # another file
    Translator(folder, precision="fp32", checksums=False)


def test_tokenizer_that_does_not_belong_to_the_model(exported: Path, tmp_path: Path) -> None:
    settings = replace(open_folder(exported).settings, symbols=100, mask=99)
    folder = damaged(exported, tmp_path, lambda copy: write_settings(copy, settings, {}))
    with pytest.raises(UserError, match=r"tokenizer\.json: gives ids up to 112, but the model has 100 symbols"):
        Translator(folder)


def test_tokenizer_that_is_none(exported: Path, tmp_path: Path) -> None:
    def spoil(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(json.dumps({"model": {}}))
        write_settings(folder, open_folder(exported).settings, {})

    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer that can be read"):
        Translator(damaged(exported, tmp_path, spoil))
