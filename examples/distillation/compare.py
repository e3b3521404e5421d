"""Whether two checkpoints hold the same parameters, bit for bit: ``compare.py ONE.pt OTHER.pt``."""

import sys

import torch

import nat_plugin
from plugin_common.checkpoint_files import check_and_load


def main() -> int:
    """0 if they are equal."""
    nat_plugin.register()
    one, other = (check_and_load(path)["model"] for path in sys.argv[1:3])
    different = [name for name in one.keys() | other.keys() if not _same(one.get(name), other.get(name))]
    print(f"{len(one)} tensors, {sum(t.numel() for t in one.values()):,} values; different: {len(different)}")
    return 1 if different else 0


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)


if __name__ == "__main__":
    sys.exit(main())
