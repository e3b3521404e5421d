"""What a trainer sees of a model that is split over the processes."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from plugin_common.sharded_tensors import gathered, is_sharded, shard_like


class ShardedModel(nn.Module):
    """Covers a model that ``fully_shard`` has split: states that go in and out hold whole tensors.

    Everything else is the model's own.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._gathered: dict[str, Tensor] | None = None

    def __getattr__(self, name: str) -> Any:
        """Attributes of the model."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's."""
        return self.module(*args, **kwargs)

    def gather(self, *, keep: bool) -> None:
        """Collect the whole state for :meth:`state_dict`, on processes with ``keep``. All processes must call it."""
        state = self.module.state_dict()
        first_names: dict[int, str] = {}  # of parameters with several: they are gathered once and saved once
        alias = {
            name: first_names.setdefault(id(param), name)
            for name, param in self.module.named_parameters(remove_duplicate=False)
            if name in state
        }
        whole = {name: gathered(value, keep=keep) for name, value in state.items() if alias.get(name, name) == name}
        self._gathered = {name: whole[alias.get(name, name)] for name in state} if keep else None

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """What :meth:`gather` has collected; it is not kept.

        Raises:
            RuntimeError: nothing has been.
        """
        state, self._gathered = self._gathered, None
        if state is None:
            raise RuntimeError("the model's parts have not been gathered on this process")
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Of whole tensors, which all processes have, each takes its own rows. Misfits are left to the model."""
        own = dict(self.module.named_parameters(remove_duplicate=False))

        def part(name: str, value: Any) -> Any:
            like = own.get(name)
            return shard_like(like, value) if is_sharded(like) and like.shape == value.shape else value

        parts = {name: part(name, value) for name, value in state_dict.items()}
        return self.module.load_state_dict(parts, *args, **kwargs)
