"""What the plan says, beside what a sweep does."""

import pytest

from memmeta.prediction import predict_trial_memory
from sweeps.engine import plan
from sweeps.engine.placement import Device, Placement, Refusal
from tests.sweeps.tiny import STUDY

GIB = 2**30
CARD = Device("card", True, 1, 80 * GIB, 0, GIB // 2, host_overhead=GIB)


@pytest.mark.parametrize("budget", [None, 200 * GIB, 3 * GIB, GIB, GIB // 4])
def test_a_config_that_does_not_fit_is_one_that_is_refused(budget):
    run = STUDY.run_config({}, seed=0)
    refused = isinstance(Placement([CARD], 1, budget).place(run, ("explore", 0)), Refusal)
    assert refused == (budget == GIB // 4)
    (line,) = plan._memory([predict_trial_memory(run)], CARD, budget, None)
    assert ("100 % of the configs do not fit" in line) == refused
