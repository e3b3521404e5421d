"""Write a fine-tuned model as a Hugging Face folder: an adapter beside its base, or a whole model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nid_plugin.causal_lm import lora, source
from nid_plugin.causal_lm.lm import base_name, config_from_json, untrained_lm
from nid_plugin.export.chat_template import chat_template
from nid_plugin.export.checkpoint import Trained
from nid_plugin.export.merge import merge_files, weight_updates
from nid_plugin.export.model_card import model_card
from nid_plugin.formatting import Formatter
from plugin_common.errors import UserError
from plugin_common.hf_folder import CONFIG_FILE, TOKENIZER_CONFIG_FILE, quiet_transformers, write_json
from plugin_common.whole_folder import whole_folder

CARD_FILE = "README.md"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
GENERATION_CONFIG_FILE = "generation_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
_TOKENIZER_FILES = (
    "tokenizer.json", TOKENIZER_CONFIG_FILE, "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", CHAT_TEMPLATE_FILE,
)  # fmt: skip


def write_adapter(
    trained: Trained, base: Path, output: Path, *, base_as: str | None, name: str, about: str | None
) -> None:
    """An adapter in peft's format, with the tokenizer.

    Args:
        trained: the checkpoint; has adapters.
        base: its base.
        output: folder that does not exist, or is empty.
        base_as: what the adapter calls its base; None: its name on the hub if it came from there, else its folder.
        name: of the model, for the card.
        about: for the card.
    """
    from safetensors.torch import save_file

    assert trained.adapters is not None
    called = base_as or base_name(base)
    config = trained.adapters.peft_config(called)
    state = lora.to_peft_names(trained.state)
    if trained.adapters.targets == (lora.ALL_LINEAR,):
        config.target_modules = list({name.split(".lora_")[0].rpartition(".")[2] for name in state})
    config.target_modules = sorted(config.target_modules or ())  # peft makes a set of them: another order each time
    config.inference_mode = True
    with whole_folder(output, marker=source.ADAPTER_CONFIG_FILE) as made:
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, made / ADAPTER_FILE, {"format": "pt"})
        config.save_pretrained(str(made))
        _write_company(trained, base, made, name=name, adapter_of=called, about=about)


def write_merged(
    trained: Trained,
    base: Path,
    output: Path,
    *,
    dtype: torch.dtype | None,
    name: str,
    about: str | None,
    on_tensor: Callable[[], object] = lambda: None,
) -> None:
    """The base with the adapters added to its weights."""
    assert trained.adapters is not None
    updates = weight_updates(trained.state, trained.adapters.alpha / trained.adapters.rank)
    with whole_folder(output, marker=CONFIG_FILE) as made:
        merge_files(base, made, updates, dtype=dtype, on_tensor=on_tensor)
        config = json.loads((base / CONFIG_FILE).read_text(encoding="utf-8"))
        _write_config(config, made, dtype)
        _write_company(trained, base, made, name=name, adapter_of=None, about=about)


def write_full(
    trained: Trained, base: Path, output: Path, *, dtype: torch.dtype | None, name: str, about: str | None
) -> None:
    """All weights of a fully fine-tuned model."""
    config = config_from_json(trained.lm_config)
    kept = dtype or next(tensor.dtype for tensor in trained.state.values() if tensor.is_floating_point())
    lm = untrained_lm(config, dtype=kept, attention="sdpa")
    lm.load_state_dict(trained.state, strict=True)
    lm.tie_weights()
    with whole_folder(output, marker=CONFIG_FILE) as made:
        with quiet_transformers():
            lm.save_pretrained(made)
        _write_company(trained, base, made, name=name, adapter_of=None, about=about)


def _write_config(config: dict[str, Any], made: Path, dtype: torch.dtype | None) -> None:
    if dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = str(dtype).removeprefix("torch.")
    write_json(made / CONFIG_FILE, config)


def _write_company(
    trained: Trained, base: Path, made: Path, *, name: str, adapter_of: str | None, about: str | None
) -> None:
    """Tokenizer, chat template, generation settings and card."""
    for tokenizer_file in _TOKENIZER_FILES:
        if (base / tokenizer_file).is_file():
            shutil.copyfile(base / tokenizer_file, made / tokenizer_file)
    tokenizer = source.load_tokenizer(base)
    end = Formatter(tokenizer, trained.pair_format, str(base)).end_ids[-1]
    if adapter_of is None:
        _write_generation_config(base, made, tokenizer, end)
    template = chat_template(tokenizer, trained.pair_format)
    if template is not None:
        settings = _json_of(made / TOKENIZER_CONFIG_FILE)
        if settings.pop("chat_template", None) is not None:
            write_json(made / TOKENIZER_CONFIG_FILE, settings)
        (made / CHAT_TEMPLATE_FILE).write_text(template, encoding="utf-8")
    card = model_card(
        trained,
        name=name,
        base=adapter_of or base_name(base),
        adapter=adapter_of is not None,
        end=str(tokenizer.convert_ids_to_tokens(end)),
        about=about,
    )
    (made / CARD_FILE).write_text(card, encoding="utf-8")
    for file in made.iterdir():  # safetensors writes for the owner alone; give all the rights that new files get
        file.chmod((made / CARD_FILE).stat().st_mode)


def _write_generation_config(base: Path, made: Path, tokenizer: Any, end: int) -> None:
    """The base's settings; generation ends at the training's end token, too, which need not be the tokenizer's."""
    own = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    settings = _json_of(base / GENERATION_CONFIG_FILE) or own
    settings.pop("_from_model_config", None)  # allows transformers to derive them again
    known = settings.get("eos_token_id")
    named = known if isinstance(known, list) else [known, tokenizer.eos_token_id]
    ends = [token for token in dict.fromkeys([end, *named]) if token is not None]
    write_json(made / GENERATION_CONFIG_FILE, {**settings, "eos_token_id": ends if len(ends) > 1 else end})


def _json_of(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no such file."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def check_output(output: Path) -> None:
    """Refuse to write over something.

    Raises:
        UserError: the path is a file or a folder with contents.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output}: exists and is not empty; give another folder")
