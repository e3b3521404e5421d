"""A small GGUF file is written here, quantised as those that are handed out, and converted."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel

from nid_plugin.causal_lm.gguf import convert_gguf
from nid_plugin.causal_lm.source import load_tokenizer, load_weights, read_config
from plugin_common.errors import UserError
from plugin_common.hf_folder import quiet_transformers

with quiet_transformers():
    from transformers import AutoModelForCausalLM, AutoTokenizer

WIDTH, INNER, LAYERS, HEADS, GROUPS = 64, 96, 2, 4, 2
SPECIAL = ["<unk>", "<s>", "</s>", "<|eot|>"]
TOKENS = [*SPECIAL, *sorted(ByteLevel.alphabet()), "he", "ll", "Ġw"]
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def write_gguf(
    path: Path, *, left_out: str = "", name: str = "llama", bos: bool = False, parts: int = 1
) -> dict[str, Any]:
    """A LLaMA of 8-bit blocks; returns the values that they stand for."""
    writer = gguf.GGUFWriter(str(path), name)
    for method, value in {
        "name": "Toy",
        "license": "mit",
        "block_count": LAYERS,
        "context_length": 128,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "head_count": HEADS,
        "head_count_kv": GROUPS,
        "rope_freq_base": 5000.0,
        "layer_norm_rms_eps": 1e-5,
        "vocab_size": len(TOKENS),
        "rope_dimension_count": WIDTH // HEADS,
        "tokenizer_model": "gpt2",
        "tokenizer_pre": "smollm",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unk_token_id": 0,
        "pad_token_id": 2,
        "eot_token_id": 3,
        "add_bos_token": bos,
        "chat_template": TEMPLATE,
    }.items():
        getattr(writer, f"add_{method}")(value)
    if left_out != "tokenizer":
        writer.add_token_list(TOKENS)
        writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
        writer.add_token_merges(["h e", "l l", "Ġ w"])
    if parts > 1:
        writer.add_uint16("split.count", parts)
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.{part}": shape
            for part, shape in {
                "attn_q": (WIDTH, WIDTH),
                "attn_k": (WIDTH * GROUPS // HEADS, WIDTH),
                "attn_v": (WIDTH * GROUPS // HEADS, WIDTH),
                "attn_output": (WIDTH, WIDTH),
                "ffn_gate": (INNER, WIDTH),
                "ffn_up": (INNER, WIDTH),
                "ffn_down": (WIDTH, INNER),
                "attn_norm": (WIDTH,),
                "ffn_norm": (WIDTH,),
            }.items()
        }
    random, kept = np.random.default_rng(0), {}
    for tensor, shape in shapes.items():
        values = random.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{tensor}.weight", values)
        elif tensor != left_out:
            blocks = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(f"{tensor}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            values = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0)
        kept[tensor] = torch.from_numpy(values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """The file, the folder, the values."""
    root = tmp_path_factory.mktemp("gguf")
    values = write_gguf(root / "toy.gguf")
    return root / "toy.gguf", convert_gguf(root / "toy.gguf", root / "folder"), values


def test_the_folder_loads_as_it_is_with_equal_logits(made: Any) -> None:
    file, folder, values = made
    with quiet_transformers():
        direct = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32)
        again = AutoModelForCausalLM.from_pretrained(str(folder))
    tokens = torch.arange(40)[None]
    assert torch.equal(again(tokens).logits, direct(tokens).logits)
    assert again.dtype == torch.float32
    assert torch.equal(again.model.embed_tokens.weight, values["token_embd"])
    assert torch.equal(again.model.layers[1].mlp.down_proj.weight, values["blk.1.ffn_down"])
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert again.config.rope_parameters["rope_theta"] == 5000.0
    assert again.generation_config.eos_token_id == [2, 3]


def test_our_own_reader_takes_it(made: Any) -> None:
    _, folder, _ = made
    config = read_config(folder)
    load_weights(folder, config, dtype=torch.float32, attention="sdpa")
    assert load_tokenizer(folder).eos_token == "</s>"


def test_the_tokenizer_with_its_template(made: Any) -> None:
    file, folder, _ = made
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    assert tokenizer("hello w12</s>").tokens() == ["he", "ll", "o", "Ġw", "1", "2", "</s>"]
    assert tokenizer.model_max_length == 128
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "user: x\n"
    direct = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    for text in ("Hello wéé\n\n 12 ", "<s>", "你好"):
        assert tokenizer(text)["input_ids"] == direct(text)["input_ids"]


def test_a_token_in_front_stays(tmp_path: Path) -> None:
    write_gguf(tmp_path / "toy.gguf", bos=True)
    tokenizer = AutoTokenizer.from_pretrained(
        str(convert_gguf(tmp_path / "toy.gguf", tmp_path / "out", dtype="bfloat16"))
    )
    assert tokenizer("he").tokens() == ["<s>", "he"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_nothing_of_this_machine_is_written(made: Any) -> None:
    file, folder, _ = made
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        assert str(file.parent) not in path.read_text()
        assert not {"_model_name_or_path", "_name_or_path", "is_local", "quantization_config"} & set(content)
    about = json.loads((folder / "gguf.json").read_text())
    assert (about["file"], about["name"], about["license"]) == ("toy.gguf", "Toy", "mit")
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1


def refused(tmp_path: Path, match: str, file: Path | None = None, **options: Any) -> None:
    with pytest.raises(UserError, match=match):
        convert_gguf(tmp_path / "toy.gguf" if file is None else file, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_files_that_are_none(tmp_path: Path) -> None:
    refused(tmp_path, "no such file")
    (tmp_path / "toy.gguf").write_bytes(b"PK\x03\x04 something else")
    refused(tmp_path, "does not begin with GGUF")
    refused(tmp_path, r"is a folder; give one of its GGUF files \(toy.gguf\)", file=tmp_path)
    refused(tmp_path, "(?s)2 problems.*GGUF.*dtype 'int8': expected one of float32", dtype="int8")


def test_a_file_cut_off(tmp_path: Path) -> None:
    write_gguf(tmp_path / "toy.gguf")
    content = (tmp_path / "toy.gguf").read_bytes()
    for kept in (6, 2000, len(content) // 2):
        (tmp_path / "toy.gguf").write_bytes(content[:kept])
        refused(tmp_path, "damaged or cut off")


def test_files_that_lack_something(tmp_path: Path) -> None:
    write_gguf(tmp_path / "toy.gguf", left_out="blk.1.ffn_up")
    refused(tmp_path, "lacks 1 tensors.*model.layers.1.mlp.up_proj.weight")
    write_gguf(tmp_path / "toy.gguf", left_out="tokenizer")
    refused(tmp_path, "has no tokenizer")
    write_gguf(tmp_path / "toy.gguf", parts=3)
    refused(tmp_path, "one of 3 parts; join them")
    write_gguf(tmp_path / "toy.gguf", name="rwkv7")
    refused(tmp_path, "transformers cannot read it as a causal LM.*rwkv7")


def test_an_output_that_is_there_stays(tmp_path: Path) -> None:
    write_gguf(tmp_path / "toy.gguf")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="out: exists; give the name of a new or empty folder"):
        convert_gguf(tmp_path / "toy.gguf", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
