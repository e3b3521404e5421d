"""A causal LM split over the processes of a group (torch's FSDP2): each reads and holds its own rows of the weights."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nid_plugin.causal_lm import source
from nid_plugin.causal_lm.lm import untrained_lm
from plugin_common.errors import UserError, raise_all
from plugin_common.hf_folder import first_line
from plugin_common.progress import progress_bar
from plugin_common.sharded_tensors import from_own_rows, own_rows

logger = logging.getLogger(__name__)


def check_processes() -> None:
    """There must be others to share the model with.

    Raises:
        UserError: there are none.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        raise UserError(
            "--shard-model splits a model over several processes, but there is one: start them with `torchrun "
            "--nproc-per-node N --no-python fairseq-train …`, or leave the option out"
        )


def open_to_split(
    folder: Path, config: Any, *, dtype: torch.dtype, attention: str, change: Callable[[Any], None]
) -> tuple[Any, Callable[[nn.Module], None]]:
    """A model to be split over the processes, and what splits it.

    Args:
        folder: see :func:`nid_plugin.causal_lm.source.local_folder`.
        config: of that folder.
        dtype: of the weights in memory.
        attention: name of an implementation that transformers knows.
        change: called with the model; may add layers (adapters).

    Returns:
        the model, whose own weights need not be there yet; and a function for all processes to call, which splits a
        module around the model (see :func:`split`) and brings the weights.

    Raises:
        UserError: see :func:`nid_plugin.causal_lm.source.load_weights`.
    """
    lm = empty_lm(config, dtype=dtype, attention=attention)
    files = _files_of_tensors(folder)
    missing = [names[0] for names, _ in _parameters_without_memory(lm) if _name_in_files(names, files) is None]
    if missing:
        logger.warning(
            "%s: its files name weights in another way than the model does (%s): each process reads them all before it "
            "keeps its part, which takes room for the whole model", folder, ", ".join(missing[:2]),
        )  # fmt: skip
        lm = source.load_weights(folder, config, dtype=dtype, attention=attention)
        change(lm)
        return lm, lambda root: split(root, lm)

    def split_and_read(root: nn.Module) -> None:
        split(root, lm)
        read_own_rows(lm, files, folder)

    with _as_if_on_cpu(lm):
        change(lm)
    return lm, split_and_read


def empty_lm(config: Any, *, dtype: torch.dtype, attention: str) -> Any:
    """A model whose parameters have shapes but no memory (torch's meta device); its buffers are real."""
    from accelerate import init_empty_weights  # type: ignore[import-untyped]  # peft needs it, too

    with init_empty_weights(include_buffers=False):
        lm = untrained_lm(config, dtype=dtype, attention=attention)
    lm.tie_weights()  # not within: there every assignment makes a parameter of its own
    return lm


@contextlib.contextmanager
def _as_if_on_cpu(lm: nn.Module) -> Iterator[None]:
    """Within the block the parameters without memory seem to lie on the CPU: one number, seen at every index.

    Adapters follow the device of the layer that they are put into, and their first values are to be drawn.
    """
    empty = [param for param in lm.parameters() if param.is_meta]
    shown = [nn.Parameter(param.new_zeros((), device="cpu").expand(param.shape)) for param in empty]
    _replace(lm, dict(zip(map(id, empty), shown, strict=True)))
    yield
    for param, substitute in zip(empty, shown, strict=True):
        param.requires_grad_(substitute.requires_grad)
    _replace(lm, dict(zip(map(id, shown), empty, strict=True)))


def _replace(lm: nn.Module, by_id: dict[int, nn.Parameter]) -> None:
    for module in lm.modules():
        for name, param in list(module.named_parameters(recurse=False)):
            if id(param) in by_id:
                module._parameters[name] = by_id[id(param)]


def split(root: nn.Module, lm: Any) -> None:
    """Split parameters by rows over all processes: those of each layer together, then what remains in ``root``.

    A layer's parameters are whole only while it computes, what remains (the output projection, which the loss uses) for
    a whole step. Gradients are averaged over the processes, as DDP does, in float32. On CUDA the parameters get to the
    process's device.

    Args:
        root: the module whose ``forward`` is called.
        lm: within it.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    device = "cuda" if "nccl" in torch.distributed.get_backend() else "cpu"
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    embeddings, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    alone = [] if embeddings.weight is head.weight else [embeddings]
    for part in [*alone, *layers_of(lm), root]:
        made = fully_shard(part, mesh=mesh, mp_policy=policy)
        assert isinstance(made, FSDPModule)


def layers_of(lm: Any) -> list[nn.Module]:
    """The decoder layers.

    Raises:
        UserError: the model does not say which they are.
    """
    kinds = set(getattr(lm, "_no_split_modules", None) or ())
    layers = [module for module in lm.modules() if type(module).__name__ in kinds]
    if not layers:
        raise UserError(f"--shard-model: transformers does not tell the layers of a {lm.config.model_type} model")
    return layers


def _parameters_without_memory(lm: nn.Module) -> list[tuple[list[str], Any]]:
    """With all names of each; tied ones have several."""
    names: dict[int, tuple[list[str], Any]] = {}
    for name, param in lm.named_parameters(remove_duplicate=False):
        if param.is_meta:
            names.setdefault(id(param), ([], param))[0].append(name)
    return list(names.values())


def _files_of_tensors(folder: Path) -> dict[str, Path]:
    """The file that holds each tensor of a model."""
    from safetensors import SafetensorError, safe_open

    found = {}
    for file in source.weight_files(folder):
        try:
            with safe_open(str(file), framework="pt") as tensors:
                found.update(dict.fromkeys(tensors.keys(), file))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: damaged or not a safetensors file ({first_line(error)})") from error
    return found


def _name_in_files(names: list[str], files: dict[str, Path]) -> str | None:
    """What the files call a parameter; adapters put their layer's own weights one level deeper."""
    plain = (name.replace(".base_layer.", ".") for name in names)
    return next((name for name in plain if name in files), None)


def read_own_rows(lm: nn.Module, files: dict[str, Path], folder: Path) -> None:
    """Give split parameters without memory their values: this process's rows, from safetensors files.

    Raises:
        UserError: a tensor has another shape, or cannot be read.
    """
    wanted = [(_name_in_files(names, files), names, param) for names, param in _parameters_without_memory(lm)]
    state: dict[str, nn.Parameter] = {}
    problems = []
    with _bar_of_first_process(len(wanted)) as update:
        for in_file, names, param in wanted:
            assert in_file is not None
            rows, shape = _rows(files[in_file], in_file, param)
            if shape != param.shape:
                problems.append(f"--model {folder}: {in_file} is {[*shape]}, its configuration wants {[*param.shape]}")
            else:
                read = nn.Parameter(from_own_rows(param, rows), requires_grad=param.requires_grad)
                state.update(dict.fromkeys(names, read))
            update(1)
    raise_all(problems[:5])
    nn.Module.load_state_dict(lm, state, strict=False, assign=True)


@contextlib.contextmanager
def _bar_of_first_process(total: int) -> Iterator[Callable[[int], object]]:
    if torch.distributed.get_rank() > 0:
        yield lambda done: None
        return
    with progress_bar(total=total, unit=" tensors", description="read own rows of the weights") as bar:
        yield bar.update


def _rows(file: Path, name: str, param: Any) -> tuple[Tensor, torch.Size]:
    """This process's rows of a tensor in a file as ``param`` has them, and the shape of the whole."""
    from safetensors import SafetensorError, safe_open

    own, device = own_rows(param), param.device_mesh.device_type
    try:
        # Opened for each tensor: pages of a mapped file count as this process's memory until it is closed.
        with safe_open(str(file), framework="pt") as tensors:
            part = tensors.get_slice(name)
            shape = torch.Size(part.get_shape())
            if shape != param.shape or own.start == own.stop:
                return torch.empty((0, *param.shape[1:]), dtype=param.dtype, device=device), shape
            return part[own.start : own.stop].to(device=device, dtype=param.dtype, copy=True), shape
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: damaged or not a safetensors file ({first_line(error)})") from error
