import subprocess
import sys

from fairseq.criterions import CRITERION_REGISTRY
from fairseq.data.encoders import BPE_REGISTRY
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
from fairseq.tasks import TASK_REGISTRY

import nat_plugin


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_everything_that_documents_name_is_registered() -> None:
    nat_plugin.register()
    nat_plugin.register()
    assert "ctc_nat" in TASK_REGISTRY
    assert "ctc_pmlm" in MODEL_REGISTRY
    assert {
        "ctc_pmlm",
        "ctc_pmlm_tiny",
        "ctc_xlmr_base",
        "ctc_xlmr_large",
        "ctc_mbert_base",
        "ctc_distilmbert_base",
    } <= set(ARCH_MODEL_REGISTRY)
    assert "ctc_nat_loss" in CRITERION_REGISTRY
    assert "pmlm" in BPE_REGISTRY
    from nat_plugin.models.upsamplers import UPSAMPLERS

    assert {"mask_insertion", "token_duplication"} <= set(UPSAMPLERS)


def test_importing_the_package_alone_loads_nothing_heavy() -> None:
    loaded = in_a_fresh_process(
        "import sys, nat_plugin, plugin_common, nat_plugin.cli, plugin_common.compat\n"
        "print([name for name in ('torch', 'fairseq', 'transformers', 'numpy') if name in sys.modules])"
    )
    assert loaded == "[]"


def test_imported_after_fairseq_it_registers_itself() -> None:
    assert (
        in_a_fresh_process(
            "import logging, fairseq, nat_plugin\n"
            "from fairseq.tasks import TASK_REGISTRY\n"
            "print('ctc_nat' in TASK_REGISTRY)"
        ).split("\n")[-1]
        == "True"
    )
