"""From a checkpoint to a folder that translates with onnxruntime alone.

``from nat_plugin.export import Translator`` loads onnxruntime, tokenizers and numpy; the package itself loads nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nat_plugin.export.translator import Translation, Translator

__all__ = ["Translation", "Translator"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nat_plugin.export import translator

    return getattr(translator, name)
