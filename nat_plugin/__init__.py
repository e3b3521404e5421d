"""Non-autoregressive (one-pass) translation from pretrained masked language models, as a fairseq plugin.

``fairseq-train --user-dir nat_plugin …`` imports this package after fairseq: then it registers itself. Imported without
fairseq it loads nothing heavy; programs that need fairseq's registries call :func:`register`.
"""

import sys

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
    from plugin_common.registration import register_components

    register_components(_COMPONENTS)


if "fairseq" in sys.modules:
    register()
