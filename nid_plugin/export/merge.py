"""Adapters added to their base's weights, file by file: one file's tensors are in memory at a time."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from nid_plugin.causal_lm.source import INDEX_FILE, weight_files
from plugin_common.errors import UserError

_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"


def weight_updates(state: Mapping[str, Tensor], scale: float) -> dict[str, Callable[[], Tensor]]:
    """Name of a base's weight → what computes ``scale · B A`` in float32, ``[out, in]``.

    Raises:
        UserError: an A without its B, or the other way round.
    """
    updates: dict[str, Callable[[], Tensor]] = {}
    layers = {name.removesuffix(_A).removesuffix(_B) for name in state}
    for layer in sorted(layers):
        if layer + _A not in state or layer + _B not in state:
            raise UserError(f"the checkpoint's adapter of {layer} is incomplete; train it again")

        def product(layer: str = layer) -> Tensor:
            return scale * (state[layer + _B].float() @ state[layer + _A].float())

        updates[f"{layer}.weight"] = product
    return updates


def merge_files(
    base: Path,
    output: Path,
    updates: Mapping[str, Callable[[], Tensor]],
    *,
    dtype: torch.dtype | None = None,
    on_tensor: Callable[[], object] = lambda: None,
) -> int:
    """Write the base's safetensors files into ``output`` with the updates added; the bytes written.

    Sums are made in float32 and rounded once, to ``dtype`` or to the base's own.

    Raises:
        UserError: an update whose weight the base does not have, or has in another shape.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    left, written = dict(updates), 0
    for file in weight_files(base):
        with safe_open(str(file), framework="pt") as tensors:
            made = {}
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                tensor = tensors.get_tensor(name)
                wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
                update = left.pop(name, None)
                made[name] = tensor.to(wanted) if update is None else _sum(name, tensor, update()).to(wanted)
                on_tensor()
            metadata = tensors.metadata() or {"format": "pt"}
        save_file(made, output / file.name, metadata=metadata)
        written += sum(tensor.nbytes for tensor in made.values())
    if left:
        raise UserError(
            f"{base}: has no weight of the name {sorted(left)[0]} in its files, which {len(left)} adapters change; "
            "export the adapter alone (without --merge) and merge it with peft's merge_and_unload"
        )
    _copy_index(base, output, written)
    return written


def _sum(name: str, weight: Tensor, update: Tensor) -> Tensor:
    if weight.shape != update.shape:
        raise UserError(
            f"the adapter of {name} changes a weight of shape {[*update.shape]}, the base's is {[*weight.shape]}"
        )
    return weight.float() + update


def _copy_index(base: Path, output: Path, size: int) -> None:
    import json

    if not (base / INDEX_FILE).is_file():
        return
    shutil.copyfile(base / INDEX_FILE, output / INDEX_FILE)
    index = json.loads((output / INDEX_FILE).read_text(encoding="utf-8"))
    index.setdefault("metadata", {})["total_size"] = size
    (output / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
