"""How a plugin puts its parts into fairseq's registries."""

from collections.abc import Iterable
from importlib import import_module

from plugin_common import compat


def register_components(modules: Iterable[str]) -> None:
    """Mend what fairseq needs mended, then import ``modules``, which register themselves. More than once is fine."""
    compat.apply()
    for module in modules:
        import_module(module)
