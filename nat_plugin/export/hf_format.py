"""``nat export --format hf``: the trained Transformer as a plain Hugging Face masked-LM folder."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoTokenizer

from nat_plugin.export.checkpoint import Exportable
from nat_plugin.models.masked_lm import MaskedLm
from plugin_common import hf_folder
from plugin_common.errors import UserError

LARGEST_DIFFERENCE = 1e-4


def write_hf_folder(exportable: Exportable, output: str, provenance: dict[str, Any], *, overwrite: bool) -> float:
    """Write the folder, which is a PMLM folder too, read it again and compare the states.

    Returns:
        The largest difference of a state of the model read from the folder, relative to the largest state.

    Raises:
        UserError: the folder may not be written, or does not give the states of the checkpoint.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        str(exportable.tokenizer_folder), local_files_only=True, trust_remote_code=False
    )
    words = exportable.dictionary
    entries = [(words.symbols[i], int(words.count[i])) for i in range(words.nspecial, len(words))]
    whole = whole_masked_lm(exportable.model.masked_lm)
    parent = next(folder for folder in Path(output).absolute().parents if folder.is_dir())
    needed, free = 4 * sum(parameter.numel() for parameter in whole.parameters()), shutil.disk_usage(parent).free
    if free < needed:
        raise UserError(
            f"--output {output}: the disk is full ({free / 1e6:,.0f} MB are free, about {needed / 1e6:,.0f} MB are "
            "needed); make room, or give another"
        )
    hf_folder.save_pmlm(whole, tokenizer, entries, output, provenance=provenance, overwrite=overwrite)
    difference = largest_difference(exportable.model.masked_lm, Path(output))
    if difference > LARGEST_DIFFERENCE:
        raise UserError(f"{output}: read again, its states differ by {difference:.1e} of the largest; do not use it")
    return difference


def whole_masked_lm(masked_lm: MaskedLm) -> Any:
    """The Hugging Face model, its projection to the vocabulary in place again."""
    model = AutoModelForMaskedLM.from_config(masked_lm.config, attn_implementation="sdpa", dtype=torch.float32)
    trained = {name: value.detach().float() for name, value in masked_lm.lm.state_dict().items()}
    projection: dict[tuple[int, ...], Tensor | None] = {
        tuple(masked_lm.weight.shape): masked_lm.weight,
        tuple(masked_lm.weight.shape[:1]): masked_lm.bias,
    }
    for name, value in model.state_dict().items():
        if name not in trained:  # the projection's weight or its bias
            left_out = projection[tuple(value.shape)]
            trained[name] = torch.zeros_like(value) if left_out is None else left_out.detach().float()
    model.load_state_dict(trained)
    return model.eval()


def largest_difference(masked_lm: MaskedLm, folder: Path) -> float:
    """Between the logits of the trained model and those of a folder, relative to the largest logit."""
    again = hf_folder.load_masked_lm(folder)
    tokens = torch.arange(2, 2 + 2 * min(16, masked_lm.positions)).remainder(len(masked_lm.weight)).view(2, -1)
    with torch.inference_mode():
        expected = torch.nn.functional.linear(
            masked_lm(tokens, torch.ones_like(tokens, dtype=torch.bool)), masked_lm.weight, masked_lm.bias
        )
        got = again(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    return float((got - expected).abs().max() / expected.abs().max())
