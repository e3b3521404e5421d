import gc
import sys

import pytest

from plugin_common import free_memory
from scripts.benchmarks.steps import resident_mib


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_holes_are_given_back():
    blocks = [bytearray(b"x" * 60_000) for _ in range(4000)]  # 229 MiB, in the heap
    kept = blocks[1::2]
    full = resident_mib("VmRSS")
    del blocks
    gc.collect()
    free_memory.give_back_free_memory()
    assert resident_mib("VmRSS") < full - 80
    assert all(len(block) == 60_000 for block in kept)


def test_a_system_without_glibc(monkeypatch):
    def missing(name):
        raise OSError(name)

    free_memory._malloc_trim.cache_clear()
    monkeypatch.setattr(free_memory.ctypes, "CDLL", missing)
    free_memory.give_back_free_memory()
    free_memory._malloc_trim.cache_clear()
