"""Open a causal language model: a Hugging Face folder, or a name on the model hub.

Weights come from safetensors files alone, code from transformers alone.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugin_common.errors import UserError
from plugin_common.hf_folder import CONFIG_FILE, first_line, looks_like_path, quiet_transformers

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_CONFIG_FILE = "adapter_config.json"
INDEX_FILE = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"
_WANTED_FILES = ("*.json", "*.safetensors", "tokenizer.model", "*.txt", "*.jinja")
_ROWS_SAMPLED, _VALUES_SAMPLED = 3, 16


def local_folder(model: str, *, option: str = "--model") -> Path:
    """The folder of a model: the one that is named, or where the hub's client keeps the model of that name.

    Raises:
        UserError: there is no such folder or name, the folder holds no model, an adapter alone, or a GGUF file is
            named.
    """
    path = Path(model).expanduser()
    if path.is_file():
        raise UserError(f"{option} {model}: is a file; {_what_to_do_with_file(path)}")
    if not path.is_dir():
        if looks_like_path(model):
            raise UserError(f"{option} {model}: no such folder; give a causal-LM folder or a model name of the hub")
        return _from_hub(model, option)
    if not (path / CONFIG_FILE).is_file():
        if (path / ADAPTER_CONFIG_FILE).is_file():
            raise UserError(
                f"{option} {model}: holds an adapter without its base ({ADAPTER_CONFIG_FILE}); give the folder of the "
                f"base model{_base_of_adapter(path)}"
            )
        raise UserError(f"{option} {model}: {CONFIG_FILE} is missing; expected a Hugging Face causal-LM folder")
    if not list(weight_files(path)):
        other = next((file.name for file in sorted(path.glob("*.bin"))), None)
        found = f"found {other}, which can hold code: save the model with safetensors" if other else "it is incomplete"
        raise UserError(f"{option} {model}: no {WEIGHTS_FILE} and no {INDEX_FILE}; {found}")
    return path.absolute()  # it is noted in checkpoints, which are read from other working folders


def _what_to_do_with_file(path: Path) -> str:
    if path.suffix.lower() == ".gguf":
        return f"make a folder of it with `nid import-gguf {path} --output DIR` and give that"
    return "give a Hugging Face causal-LM folder or a model name of the hub"


def _base_of_adapter(path: Path) -> str:
    try:
        base = json.loads((path / ADAPTER_CONFIG_FILE).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return ""
    return f", {base}" if base else ""


def _from_hub(name: str, option: str) -> Path:
    with quiet_transformers():
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(name, allow_patterns=list(_WANTED_FILES)))
        except Exception as error:
            raise UserError(
                f"{option} {name}: there is no such folder here, and it could not be loaded from the model hub "
                f"({first_line(error)}); check the name, or fetch the model on a machine with access and give its "
                "folder"
            ) from error


def read_config(folder: Path, *, option: str = "--model") -> "PretrainedConfig":
    """The configuration of a causal LM.

    Raises:
        UserError: transformers cannot use it, or it is no causal LM's.
    """
    with quiet_transformers():
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

        try:
            config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:
            what = f"transformers cannot use its {CONFIG_FILE} ({first_line(error)})"
            raise UserError(f"{option} {folder}: {what}") from error
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise UserError(
                f"{option} {folder}: a {config.model_type} model is no causal language model; expected LLaMA, Mistral, "
                "Qwen or another one that AutoModelForCausalLM knows"
            )
        if getattr(config, "is_encoder_decoder", False):
            raise UserError(f"{option} {folder}: a {config.model_type} model has an encoder; expected a decoder alone")
    return config


def load_tokenizer(folder: Path, *, option: str = "--model") -> "PreTrainedTokenizerBase":
    """The model's own fast tokenizer.

    Raises:
        UserError: the folder has none, or it cannot be read.
    """
    with quiet_transformers():
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise UserError(
                f"{option} {folder}: its tokenizer cannot be loaded ({first_line(error)}); expected tokenizer.json and "
                "tokenizer_config.json beside the weights"
            ) from error
    if not tokenizer.is_fast:
        raise UserError(f"{option} {folder}: has no tokenizer.json; save the tokenizer with a current transformers")
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"{option} {folder}: its tokenizer has no end-of-text token, so that a model could not learn to stop; set "
            "eos_token in tokenizer_config.json"
        )
    return tokenizer


def load_weights(
    folder: Path,
    config: "PretrainedConfig",
    *,
    dtype: "torch.dtype",
    attention: str,
    four_bit: bool = False,
    option: str = "--model",
) -> "PreTrainedModel":
    """The model with its weights, in evaluation mode.

    Args:
        folder: see :func:`local_folder`.
        config: of that folder.
        dtype: of the weights in memory.
        attention: name of an implementation that transformers knows.
        four_bit: hold the linear layers' weights as 4-bit NF4 (bitsandbytes), computing in ``dtype``.
        option: named in errors.

    Raises:
        UserError: weights missing, damaged or of another shape; bitsandbytes missing.
    """
    with quiet_transformers():
        from transformers import AutoModelForCausalLM

        arguments = {"quantization_config": _four_bits(dtype, option)} if four_bit else {}
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                str(folder),
                config=config,
                dtype=dtype,
                attn_implementation=attention,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **arguments,
            )
        except Exception as error:
            raise UserError(f"{option} {folder}: its weights cannot be loaded ({first_line(error)})") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserError(
            f"{option} {folder}: its weights lack {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}"
        )
    for module in model.modules() if four_bit else ():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # In evaluation bitsandbytes would arrange the weights anew, and from then on give them no gradient to pass.
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def _four_bits(dtype: "torch.dtype", option: str) -> Any:
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise UserError("--quantize 4bit needs the package bitsandbytes: `pip install bitsandbytes`")
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
    )


def weight_files(folder: Path) -> Iterator[Path]:
    """The safetensors files of a model, in order of name.

    Raises:
        UserError: the index cannot be read, or a file that it names is missing.
    """
    index = folder / INDEX_FILE
    if not index.is_file():
        if (folder / WEIGHTS_FILE).is_file():
            yield folder / WEIGHTS_FILE
        return
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{index}: not an index of safetensors files ({first_line(error)})") from error
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder}: {name} is missing, which {INDEX_FILE} names; fetch the model again")
        yield folder / name


def fingerprint(folder: Path) -> str:
    """What tells a model's weights from another's: 32 hexadecimal digits.

    SHA-256 over names, shapes and a few values of all tensors, rounded to bfloat16: the same for a copy saved in
    another of the usual 16-bit or 32-bit precisions or split into other files. Reads little of each file.

    Raises:
        UserError: a file is damaged.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    sampled: dict[str, bytes] = {}
    for file in weight_files(folder):
        try:
            with safe_open(str(file), framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    part = tensors.get_slice(name)
                    shape = part.get_shape()
                    starts = range(0, max(shape[0], 1), max(1, shape[0] // _ROWS_SAMPLED)) if shape else ()
                    rows = [part[start : start + 1].reshape(-1)[:_VALUES_SAMPLED] for start in starts]
                    values = torch.cat(rows).to(torch.bfloat16).view(torch.int16).numpy().tobytes() if rows else b""
                    sampled[name] = str(shape).encode() + values
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: damaged or not a safetensors file ({first_line(error)})") from error
    digest = hashlib.sha256()
    for name in sorted(sampled):
        digest.update(name.encode() + b"\n" + sampled[name])
    return digest.hexdigest()[:32]


def base_of_checkpoint(model: str, known_fingerprint: str | None, *, hint: str) -> Path:
    """The folder of the base that a checkpoint was trained on.

    Args:
        model: folder or name.
        known_fingerprint: see :func:`fingerprint`; None leaves the weights unchecked.
        hint: how to name another base, for errors.

    Raises:
        UserError: it is gone, or holds other weights.
    """
    try:
        folder = local_folder(model, option="the checkpoint's base")
    except UserError as error:
        raise UserError(f"{error}; {hint}") from error
    if known_fingerprint is not None and (found := fingerprint(folder)) != known_fingerprint:
        raise UserError(
            f"{folder}: is another model than the checkpoint was trained on (fingerprint {found}, expected "
            f"{known_fingerprint}); {hint}"
        )
    return folder


def positions(config: "PretrainedConfig") -> int:
    """Most tokens that the model was made to read at once."""
    return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 1 << 20)
