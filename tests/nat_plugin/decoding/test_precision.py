import pytest
import torch

from nat_plugin.decoding import precision
from nat_plugin.decoding.precision import choose_precision

CPU = torch.device("cpu")


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch):
    """``cpu("AMX", …)``: a processor with these instructions only."""

    def has(*names: str) -> None:
        known = precision._CPU_INSTRUCTIONS
        assert set(names) <= set(known)
        monkeypatch.setattr(precision, "_CPU_INSTRUCTIONS", {name: lambda n=name: n in names for name in known})

    return has


def test_auto_takes_bf16_where_the_cpu_has_it(cpu) -> None:
    cpu("AVX512-BF16", "AMX")
    assert choose_precision("auto", CPU, torch.float32) == (
        torch.bfloat16, "--decode-precision auto: the CPU has AVX512-BF16 and AMX"
    )  # fmt: skip
    cpu("AVX512-BF16")
    assert choose_precision("auto", CPU, torch.float32).dtype == torch.bfloat16
    cpu()
    assert choose_precision("auto", CPU, torch.float32) == (
        torch.float32, "--decode-precision auto: the CPU lacks AVX512-BF16 and AMX"
    )  # fmt: skip


def test_what_is_asked_for_is_done_and_remarked_on(cpu) -> None:
    cpu()
    dtype, reason = choose_precision("bf16", CPU, torch.float32)
    assert dtype == torch.bfloat16
    assert reason == "asked for, though the CPU lacks AVX512-BF16 and AMX; expect it slow"
    assert choose_precision("fp32", CPU, torch.float32).dtype == torch.float32
    assert choose_precision("fp32", CPU, torch.float16) == (torch.float16, "--fp16")


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (torch.float32, (torch.float32, "default")),
        (torch.float64, (torch.float32, "default")),
        (torch.float16, (torch.float16, "--fp16")),
        (torch.bfloat16, (torch.bfloat16, "the model's own")),
    ],
)
def test_where_nobody_asks_a_dtype_that_was_set_stays(present: torch.dtype, expected: tuple[torch.dtype, str]) -> None:
    assert choose_precision(None, CPU, present) == expected
    assert choose_precision("fp32", CPU, torch.bfloat16).dtype == torch.float32


def test_the_answer_is_that_of_this_processor() -> None:
    try:
        flags = next(line for line in open("/proc/cpuinfo") if line.startswith("flags")).split()  # noqa: SIM115, PTH123
    except (OSError, StopIteration):
        pytest.skip("no /proc/cpuinfo with flags")
    assert precision.bf16_support(CPU)[0] == ("avx512_bf16" in flags or "amx_tile" in flags)
