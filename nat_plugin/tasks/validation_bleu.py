"""Validation BLEU that is 0, not absent, while all hypotheses are empty."""

from typing import Any

import numpy as np
from fairseq.logging import metrics
from fairseq.tasks.translation import EVAL_BLEU_ORDER


def log_bleu_of_empty_hypotheses(logging_outputs: list[dict[str, Any]]) -> None:
    """Log what fairseq's translation task leaves out when no hypothesis of these batches has a word."""
    scored = [log for log in logging_outputs if "_bleu_totals_0" in log]
    if scored and not any(float(log["_bleu_totals_0"]) > 0 for log in scored):
        zeros = np.zeros(EVAL_BLEU_ORDER, dtype=np.int64)
        metrics.log_scalar("_bleu_counts", zeros)
        metrics.log_scalar("_bleu_totals", zeros)
        metrics.log_scalar("_bleu_sys_len", 0)
        metrics.log_scalar("_bleu_ref_len", sum(float(log["_bleu_ref_len"]) for log in scored))
        metrics.log_derived("bleu", _bleu_of_counts)


def _bleu_of_counts(meters: Any) -> float:
    """Corpus BLEU of the summed counts, also of those to come: the first function that is logged for a name stays."""
    from sacrebleu.metrics import BLEU

    total = np.asarray(meters["_bleu_totals"].sum)
    if total.max() == 0:
        return 0.0
    bleu = BLEU.compute_bleu(
        correct=np.asarray(meters["_bleu_counts"].sum).tolist(),
        total=total.tolist(),
        sys_len=int(meters["_bleu_sys_len"].sum),
        ref_len=int(meters["_bleu_ref_len"].sum),
        smooth_method="exp",
    )
    return round(bleu.score, 2)
