"""Low-rank adapters (LoRA, Hu et al. 2021) in a causal LM, by peft."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plugin_common.errors import UserError, raise_all
from plugin_common.hf_folder import first_line, quiet_transformers

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor, nn

ALL_LINEAR = "all-linear"
_NAME = "default"  # peft's name of the only adapter
_PREFIX = "base_model.model."  # of the names in peft's files


@dataclass(frozen=True)
class LoraOptions:
    """Shape of the adapters: ``W x`` becomes ``W x + alpha / rank · B (A x)``.

    Attributes:
        rank: rows of A.
        alpha: see above.
        dropout: probability, on ``x`` in front of A.
        targets: names of linear layers, or ``all-linear``: every one but the output projection.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = (ALL_LINEAR,)

    @classmethod
    def from_options(cls, rank: int, alpha: float, dropout: float, targets: str) -> "LoraOptions":
        """Checked.

        Raises:
            UserError: lists all values that cannot be.
        """
        names = tuple(name.strip() for name in targets.split(",") if name.strip())
        problems = []
        if rank < 1:
            problems.append(f"--lora-rank {rank}: expected 1 or more; for full fine-tuning give --tuning full")
        if not alpha > 0:
            problems.append(f"--lora-alpha {alpha}: expected more than 0")
        if not 0 <= dropout < 1:
            problems.append(f"--lora-dropout {dropout}: expected a probability of at least 0 and less than 1")
        if not names:
            problems.append("--lora-targets: expected names of layers, comma between them, or all-linear")
        if ALL_LINEAR in names and len(names) > 1:
            problems.append(f"--lora-targets {targets}: {ALL_LINEAR} means all of them; leave out the others, or it")
        raise_all(problems)
        return cls(rank, alpha, dropout, names)

    def peft_config(self, base: str | None = None) -> "LoraConfig":
        """As peft wants it; ``base`` names the base model in files."""
        with quiet_transformers():
            from peft import LoraConfig

        targets = ALL_LINEAR if self.targets == (ALL_LINEAR,) else list(self.targets)
        return LoraConfig(
            r=self.rank,
            lora_alpha=int(self.alpha) if self.alpha == int(self.alpha) else self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=targets,
            bias="none",
            task_type="CAUSAL_LM",
            base_model_name_or_path=base,
        )


def add_adapters(model: "nn.Module", options: LoraOptions) -> None:
    """Put adapters into ``model`` and leave nothing else trainable. At first they change nothing (B is 0).

    Raises:
        UserError: a target matches no layer, or one that can have no adapter.
    """
    _check_targets(model, options.targets)
    with quiet_transformers():
        from peft import inject_adapter_in_model

        config = options.peft_config()
        if options.targets == (ALL_LINEAR,):
            config.target_modules = _linear_layers(model)
        try:
            inject_adapter_in_model(config, model, adapter_name=_NAME)
        except ValueError as error:
            raise UserError(f"--lora-targets {','.join(options.targets)}: {first_line(error)}") from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def _linear_layers(model: Any) -> list[str]:
    """Last parts of the names of all linear layers but the output projection."""
    from torch import nn

    head = model.get_output_embeddings()
    layers = (name for name, part in model.named_modules() if isinstance(part, nn.Linear) and part is not head)
    return sorted({name.rpartition(".")[2] for name in layers})


def _check_targets(model: "nn.Module", targets: tuple[str, ...]) -> None:
    from torch import nn

    if targets == (ALL_LINEAR,):
        return
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    known = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
    raise_all(
        f"--lora-targets {target}: matches no linear layer of this model; it has {known} (or give all-linear)"
        for target in targets
        if not any(name == target or name.endswith(f".{target}") for name in names)
    )


def adapter_state(model: "nn.Module") -> dict[str, "Tensor"]:
    """The adapters' tensors by their names in ``model``."""
    return {name: tensor for name, tensor in model.state_dict().items() if "lora_" in name}


def load_adapter_state(model: "nn.Module", state: Mapping[str, "Tensor"], where: str) -> None:
    """Copy adapters into a model that has such.

    Raises:
        UserError: names or shapes are not those of the model's adapters; ``where`` is named.
    """
    own = adapter_state(model)
    problems = []
    missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing:
        problems.append(f"{where}: lacks the adapter weights {_some(missing)}")
    if foreign:
        problems.append(f"{where}: has weights that this model's adapters do not: {_some(foreign)}")
    for name in sorted(own.keys() & state.keys()):
        if own[name].shape != state[name].shape:
            problems.append(f"{where}: {name} is {[*state[name].shape]}, this model's is {[*own[name].shape]}")
            break
    raise_all(f"{problem}; rank, targets and base must be those of its training" for problem in problems)
    model.load_state_dict(state, strict=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2:,} more" if len(names) > 2 else "")


def to_peft_names(state: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Names in the model → names in peft's ``adapter_model.safetensors``."""
    return {_PREFIX + re.sub(rf"\.{_NAME}(?=\.|$)", "", name): tensor for name, tensor in state.items()}
