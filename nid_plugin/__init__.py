"""Non-instructional fine-tuning: text completions from a teacher LLM, and causal LMs fine-tuned on them, in fairseq.

``fairseq-train --user-dir nid_plugin …`` imports this package after fairseq: then it registers itself. Imported without
fairseq it loads nothing heavy: the command ``nid`` runs without torch and fairseq; programs that need fairseq's
registries call :func:`register`.
"""

import sys

_COMPONENTS = (
    "nid_plugin.optim.fused_adamw",
    "nid_plugin.models.hf_causal_lm",
    "nid_plugin.criterions.completion_cross_entropy",
    "nid_plugin.tasks.completion_sft",
)


def register() -> None:
    """Mend what fairseq needs mended, then register task, model, criterion and optimizer.

    Can be called any number of times.
    """
    from plugin_common.registration import register_components

    register_components(_COMPONENTS)


if "fairseq" in sys.modules:
    register()
