import os
import time

import pytest
import torch

from scripts.benchmarks.steps import Step, StepProcess, cpu_step

MIB = 2**20


class Allocating:
    """Steps that hold some memory, sleep and return a number."""

    def __init__(self, mib, seconds, value):
        self.inputs = torch.ones(50 * MIB, dtype=torch.uint8)
        self.mib, self.seconds, self.value = mib, seconds, value

    def reset(self):
        self.held = None

    def step(self):
        self.held = torch.ones(self.mib * MIB, dtype=torch.uint8)
        time.sleep(self.seconds)
        self.value += 1
        return self.value


class Failing(Allocating):
    def step(self):
        if self.value == 0:
            raise ValueError("no such step")
        os._exit(3)


def test_a_step_is_measured_in_a_process_of_its_own_and_over_what_there_was_before():
    with StepProcess(Allocating, 120, 0.2, 5.0) as step:
        first, second = step(), step()
    for measured in (first, second):
        assert 119 < measured.peak_mib < 140
        assert 0.2 <= measured.seconds < 5
    assert (first.value, second.value) == (6.0, 7.0)


def test_memory_freed_within_the_step_counts():
    def step():
        big = torch.ones(200 * MIB, dtype=torch.uint8)
        del big
        return 1

    assert 195 < cpu_step(step).peak_mib < 230
    small = cpu_step(lambda: 1)
    assert isinstance(small, Step)
    assert small.peak_mib < 20


def test_a_failing_step_tells_why():
    with StepProcess(Failing, 1, 0, 0) as step, pytest.raises(RuntimeError, match="ValueError: no such step"):
        step()
    with StepProcess(Failing, 1, 0, 1) as step, pytest.raises(RuntimeError, match="ended with status 3"):
        step()
    with pytest.raises(RuntimeError, match="TypeError"):
        StepProcess(Failing)
