"""Non-autoregressive (one-pass) translation from pretrained masked language models, as a fairseq plugin.

``fairseq-train --user-dir nat_plugin …`` imports this package after fairseq: then it registers itself. Imported without
fairseq it loads nothing heavy; programs that need fairseq's registries call :func:`register`.
"""

import sys
from importlib import import_module

_COMPONENTS = (
    "nat_plugin.models.upsamplers",
    "nat_plugin.models.ctc_pmlm",
    "nat_plugin.models.presets",
    "nat_plugin.criterions.ctc_nat_loss",
    "nat_plugin.criterions.embedding_distillation",
    "nat_plugin.tasks.ctc_nat",
    "nat_plugin.pmlm.fairseq_bpe",
)


def register() -> None:
    """Mend what fairseq needs mended, then register tasks, models, up-samplers, criterions and ``--bpe pmlm``.

    Can be called any number of times.
    """
    from plugin_common import compat

    compat.apply()
    for component in _COMPONENTS:
        import_module(component)


if "fairseq" in sys.modules:
    register()
