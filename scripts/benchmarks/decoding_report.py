"""Figures of the decoding benchmark: rows, ratios, the table, and where the one-pass translator wins and loses."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from scripts.benchmarks.decoding_systems import SYSTEMS
from scripts.benchmarks.measure import paired_ratio, row
from scripts.benchmarks.steps import Step

NAMED = {
    "batch1/fairseq_beam5": ("even/batch1", "fairseq_fp32_beam5"),
    "batch1/fairseq_beam1": ("even/batch1", "fairseq_fp32_beam1"),
    "batch1/ctranslate2_int8_beam1": ("even/batch1", "ctranslate2_int8_beam1"),
    "batch32/fairseq_beam1": ("even/batch32", "fairseq_fp32_beam1"),
    "batch32/ctranslate2_int8_beam1": ("even/batch32", "ctranslate2_int8_beam1"),
}
"""Ratios with names of their own: workload and peer, of the first size that was measured."""

Results = Mapping[str, Mapping[str, Sequence[Step]]]
"""``workload → system → steps``, of one size."""


def per_sentence(steps: Sequence[Step]) -> list[float]:
    """Seconds a sentence of each turn."""
    return [sum(step.value.seconds) / len(step.value.tokens) for step in steps]


def extra_mib(steps: Sequence[Step]) -> list[float]:
    """Peak memory of each turn over that of the loaded models."""
    return [step.peak_mib if step.value.extra_mib is None else step.value.extra_mib for step in steps]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that at most ``share`` of the others lie below (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rows_of(prefix: str, results: Results) -> dict[str, dict[str, float]]:
    """Milliseconds a sentence, sentences a second, memory; at batch 1 the latency's percentiles too."""
    rows: dict[str, dict[str, float]] = {}
    for workload, systems in results.items():
        for name, steps in systems.items():
            seconds = per_sentence(steps)
            figures = {
                "ms_per_sentence": [1000 * value for value in seconds],
                "sentences_per_s": [1 / value for value in seconds],
                "extra_peak_mib": extra_mib(steps),
                "resident_peak_mib": [step.value.resident_mib for step in steps],
            }
            if workload.endswith("/batch1"):
                for share in (50, 95):
                    figures[f"latency_p{share}_ms"] = [
                        1000 * percentile(step.value.seconds, share / 100) for step in steps
                    ]
            for figure, values in figures.items():
                if not any(map(math.isnan, values)):
                    rows[f"{prefix}/{workload}/{name}/{figure}"] = row(values)
            if workload.endswith("/batch1"):
                every = [1000 * second for step in steps for second in step.value.seconds]
                rows[f"{prefix}/{workload}/{name}/latency_all_ms"] = row(every) | {
                    "p50": percentile(every, 0.5), "p95": percentile(every, 0.95), "sentences": len(every)
                }  # fmt: skip
    return rows


def best_of_ours(systems: Mapping[str, Sequence[Step]]) -> str | None:
    """The one-pass system with the least median time a sentence."""
    ours = {name: statistics.median(per_sentence(steps)) for name, steps in systems.items() if SYSTEMS[name].ours}
    return min(ours, key=ours.__getitem__) if ours else None


def ratios_of(prefix: str, results: Results) -> dict[str, float]:
    """Theirs ÷ our best by time a sentence for each workload; and theirs ÷ each of ours of the same precision."""
    ratios = {}
    for workload, systems in results.items():
        best = best_of_ours(systems)
        if best is None:
            continue
        for peer, steps in systems.items():
            if SYSTEMS[peer].ours:
                continue
            ratios[f"{prefix}/{workload}/{peer}"] = paired_ratio(per_sentence(steps), per_sentence(systems[best]))
            for own, own_steps in systems.items():
                if SYSTEMS[own].ours and SYSTEMS[own].precision == SYSTEMS[peer].precision:
                    name = f"{prefix}/{workload}/{peer}/{own}"
                    ratios[name] = paired_ratio(per_sentence(steps), per_sentence(own_steps))
    return ratios


def named_ratios(prefix: str, ratios: Mapping[str, float]) -> dict[str, float]:
    """Those of ``NAMED`` that were measured."""
    full = {name: f"{prefix}/{workload}/{peer}" for name, (workload, peer) in NAMED.items()}
    return {name: ratios[long] for name, long in full.items() if long in ratios}


def table(prefix: str, results: Results) -> Iterator[str]:
    """Lines to read: median time and speed of each system, its latency at batch 1, memory, and times our best."""
    for workload, systems in results.items():
        best = best_of_ours(systems)
        yield f"\n{prefix}/{workload}"
        head = ("ms/sentence", "min", "max", "sentences/s", "p50 ms", "p95 ms", "extra MiB", "whole MiB", "x our best")
        yield f"{'':32}" + "".join(f"{word:>13}" for word in head)
        for name, steps in sorted(systems.items(), key=lambda pair: statistics.median(per_sentence(pair[1]))):
            seconds = per_sentence(steps)
            every = [second for step in steps for second in step.value.seconds]
            single = workload.endswith("/batch1")
            figures = [
                1000 * statistics.median(seconds),
                1000 * min(seconds),
                1000 * max(seconds),
                1 / statistics.median(seconds),
                1000 * percentile(every, 0.5) if single else math.nan,
                1000 * percentile(every, 0.95) if single else math.nan,
                statistics.median(extra_mib(steps)),
                statistics.median(step.value.resident_mib for step in steps),
                math.nan if best is None else paired_ratio(seconds, per_sentence(systems[best])),
            ]
            yield f"{name:32}" + "".join(f"{'-' if math.isnan(v) else format(v, '.2f'):>13}" for v in figures)


def verdict(prefix: str, results: Results, *, device: str) -> list[str]:
    """Where the one-pass translator wins and loses, in plain words, from the measured ratios."""
    lines = []
    ratios = ratios_of(prefix, results)
    for workload, systems in results.items():
        best = best_of_ours(systems)
        peers = [name for name in systems if not SYSTEMS[name].ours]
        if best is None or not peers:
            continue
        against = {name: ratios[f"{prefix}/{workload}/{name}"] for name in peers}
        wins = sorted((n for n in peers if against[n] >= 1), key=against.__getitem__, reverse=True)
        loses = sorted((n for n in peers if against[n] < 1), key=against.__getitem__)
        lines.append(f"{prefix}/{workload}: our best is {best}.")
        if wins:
            lines.append("  faster than " + ", ".join(f"{name} ({against[name]:.2f}x)" for name in wins))
        if loses:
            listed = ", ".join(f"{name} (by {1 / against[name]:.2f}x)" for name in loses)
            lines.append(f"  SLOWER than {listed}")
        else:
            lines.append("  slower than none of those measured")
        strongest = min(peers, key=against.__getitem__)
        lines.append(f"  the strongest peer is {strongest}: {against[strongest]:.2f}x our time")
    lines += _what_the_choice_of_peer_does(prefix, ratios, device)
    return lines


def _what_the_choice_of_peer_does(prefix: str, ratios: Mapping[str, float], device: str) -> list[str]:
    """The point of Helcl, Haddow and Birch (2022), with this run's figures."""
    slow, fast = f"{prefix}/even/batch1/fairseq_fp32_beam5", f"{prefix}/even/batch1/ctranslate2_int8_beam1"
    large = [name for name in ratios if name.startswith(f"{prefix}/even/batch") and name.count("/") == 3]
    sizes = {int(name.split("/batch")[1].split("/")[0]) for name in large}
    most = max(sizes, default=1)
    batched = f"{prefix}/even/batch{most}/ctranslate2_int8_beam1"
    if slow not in ratios or fast not in ratios:
        return []
    where = "a GPU" if device == "cuda" else "a CPU"
    lines = [
        "Non-autoregressive papers usually report batch 1 on a GPU against left-to-right code that is not made for "
        f"speed (Helcl et al., 2022). Here, on {where}, that way of comparing gives {ratios[slow]:.1f}x (fairseq, beam "
        f"5, float32); against optimised left-to-right code (CTranslate2, int8, beam 1) it is {ratios[fast]:.1f}x at "
        "batch 1"
    ]
    if most > 1 and batched in ratios:
        lines[0] += f" and {ratios[batched]:.2f}x at batch {most}"
    lines[0] += "."
    return lines
