"""A GGUF file made into a Hugging Face folder that can be fine-tuned.

Quantised weights are unpacked: they keep the values that the quantisation left them.
"""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugin_common.errors import UserError, raise_all
from plugin_common.hf_folder import CONFIG_FILE, TOKENIZER_CONFIG_FILE, first_line, quiet_transformers, write_json
from plugin_common.whole_folder import whole_folder

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SOURCE_FILE = "gguf.json"
"""Where the model came from: the GGUF's name and its general metadata (model, organisation, license); for people."""

DTYPES = ("float32", "bfloat16", "float16")

_MAGIC = b"GGUF"
_ABOUT = ("name", "organization", "license", "architecture", "file_type", "quantization_version")
_PROBES = ("Hello world", "  two spaces, 12345\n\n\tßüñ 你好 🙂", "x")


def convert_gguf(file: str | Path, output: str | Path, *, dtype: str = "float32") -> Path:
    """Write the causal LM of a GGUF file as a Hugging Face folder: safetensors, tokenizer, chat template, configs.

    Args:
        file: one GGUF file (not one part of several), of an architecture that transformers reads.
        output: the folder to make; if it exists, it must be empty.
        dtype: of the weights written: ``float32`` keeps every unpacked value, the others round it.

    Returns:
        The folder, which ``AutoModelForCausalLM`` and ``AutoTokenizer`` load as it is.

    Raises:
        UserError: the file is missing, damaged, no GGUF, or of an unknown architecture; its tensors do not fill the
            model; it has no tokenizer; the output exists; an unknown dtype.
        ModuleNotFoundError: the package ``gguf`` or ``accelerate`` is not installed.
    """
    for package in ("gguf", "accelerate"):  # transformers needs both, and says so less plainly
        import_module(package)
    source, folder = Path(file), Path(output)
    raise_all(_problems(source, folder, dtype))
    reader = _open(source)
    with quiet_transformers(), whole_folder(folder, marker=CONFIG_FILE) as made:
        model = _load_model(source, dtype)
        tokenizer = _load_tokenizer(source, model.config)
        model.generation_config.eos_token_id = _ends(reader, model.config.eos_token_id)
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        _mend(made / CONFIG_FILE, removed=("_model_name_or_path",))
        # The class's name lets AutoTokenizer take tokenizer.json as it is; transformers 4 does not know the one of 5.
        _mend(
            made / TOKENIZER_CONFIG_FILE,
            removed=("is_local", "local_files_only"),
            tokenizer_class="PreTrainedTokenizerFast",
        )
        write_json(made / SOURCE_FILE, {"file": source.name} | _about(reader))
        _check_tokenizer(made, tokenizer, source)
        for entry in made.iterdir():  # safetensors writes for the owner alone; give all the rights that new files get
            entry.chmod((made / SOURCE_FILE).stat().st_mode)
    return folder


def _problems(source: Path, folder: Path, dtype: str) -> Iterator[str]:
    if source.is_dir():
        inside = sorted(entry.name for entry in source.glob("*.gguf"))
        yield f"{source}: is a folder; give one of its GGUF files ({', '.join(inside[:5]) or 'it holds none'})"
    elif not source.is_file():
        yield f"{source}: no such file; give a GGUF file"
    else:
        with source.open("rb") as stream:
            if stream.read(4) != _MAGIC:
                yield f"{source}: no GGUF file (it does not begin with GGUF); give a GGUF file"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        yield f"{folder}: exists; give the name of a new or empty folder"
    if dtype not in DTYPES:
        yield f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}"


def _open(source: Path) -> "GGUFReader":
    from gguf import GGUFReader

    try:
        reader = GGUFReader(source)
    except Exception as error:  # whatever its bytes lead the reader to
        raise UserError(f"{source}: damaged or cut off ({first_line(error)}); fetch it again") from error
    parts = _field(reader, "split.count")
    if parts is not None and parts > 1:
        raise UserError(f"{source}: one of {parts} parts; join them first (llama.cpp: `llama-gguf-split --merge`)")
    if _field(reader, "tokenizer.ggml.tokens") is None:
        raise UserError(f"{source}: has no tokenizer; give a GGUF file of a whole language model")
    return reader


def _field(reader: "GGUFReader", name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()


def _about(reader: "GGUFReader") -> dict[str, Any]:
    return {name: value for name in _ABOUT if (value := _field(reader, f"general.{name}")) is not None}


def _load_model(source: Path, dtype: str) -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(source.resolve().parent),
            gguf_file=source.name,
            dtype=getattr(torch, dtype),
            quantization_config=GgufConfig(dequantize=True),  # else some machines keep the weights packed
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise UserError(
            f"{source}: transformers cannot read it as a causal LM ({first_line(error)}); give a GGUF file of "
            "LLaMA, Mistral, Qwen or another architecture that it reads"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(f"{source}: lacks {len(missing)} tensors of the model, first {missing[0]}; fetch it again")
    # transformers takes what came from a GGUF for quantised, unpacked or not, and would refuse to save it.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model


def _ends(reader: "GGUFReader", eos: int | None) -> int | list[int] | None:
    """The tokens that end an answer: end of text, and end of turn where the file has one."""
    turn = _field(reader, "tokenizer.ggml.eot_token_id")
    return eos if turn is None or turn == eos else [token for token in (eos, int(turn)) if token is not None]


def _load_tokenizer(source: Path, config: Any) -> "PreTrainedTokenizerFast":
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(source.resolve().parent), gguf_file=source.name, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise UserError(f"{source}: transformers cannot read its tokenizer ({first_line(error)})") from error
    tokenizer.model_max_length = config.max_position_embeddings
    return tokenizer


def _mend(path: Path, *, removed: tuple[str, ...], **changed: str) -> None:
    """Take entries out of a JSON file, or change them."""
    content = json.loads(path.read_text(encoding="utf-8")) | changed
    write_json(path, {name: value for name, value in content.items() if name not in removed})


def _check_tokenizer(folder: Path, tokenizer: "PreTrainedTokenizerFast", source: Path) -> None:
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    different = [text for text in _PROBES if again(text)["input_ids"] != tokenizer(text)["input_ids"]]
    if different or again.chat_template != tokenizer.chat_template:
        raise UserError(f"{source}: its tokenizer does not survive being saved (it reads {different} differently)")
