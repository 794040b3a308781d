"""Limits and reservations, tested in separate processes: a limit would affect all other tests."""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memmeta.memory import limits

MIB = 2**20
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit")

PRELUDE = """
import json, resource, sys
from pathlib import Path
import torch
from memmeta import data
from memmeta.memory import limits
from memmeta.config import RunConfig
from memmeta.memory.prediction import predict_peak_memory, predict_trial_memory
from memmeta.system.runtime import configure_process
from memmeta.training import MetaTrainer

CPU = torch.device("cpu")
MIB = 2**20
configure_process(threads=1)
overhead = limits.process_overhead(CPU)

def attempt(allocate):
    try:
        allocate()
        return "enough"
    except Exception as error:
        assert limits.is_out_of_memory(error), error
        return "out of memory"

def train(run):
    trainer = MetaTrainer(run, data.load("glyphs", Path(sys.argv[1])), CPU)
    while not trainer.done:
        trainer.train_to_evaluation()

def high_water_mark():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
"""


def run_in_process(script, *arguments):
    """Run a script in a new process and parse the last line of its output as JSON."""
    finished = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


@linux_only
def test_a_cap_limits_memory_and_the_next_one_replaces_it():
    result = run_in_process("""
def one_gibibyte():
    torch.ones(2**28)

answers = []
for predicted in (MIB, 2**30, MIB):
    limits.cap(CPU, limits.reservation(CPU, predicted, overhead), overhead)
    answers.append(attempt(one_gibibyte))
answers.append(attempt(lambda: bytearray(2**30)))
soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
answers.append(hard == resource.RLIM_INFINITY)
print(json.dumps(answers))
""")
    assert result == ["out of memory", "enough", "out of memory", "out of memory", True]


@pytest.mark.thorough
@linux_only
def test_training_beyond_its_reservation_is_out_of_memory(data_root):
    result = run_in_process(
        """
run = RunConfig.model_validate({
    "learner": {"algorithm": "anil", "feature_reuse": False, "task_batch": 8, "inner_steps": 8},
    "training": {"iterations": 2, "val_tasks": 2},
})
limits.cap(CPU, limits.reservation(CPU, 10 * MIB, overhead), overhead)
print(json.dumps([predict_peak_memory(run), attempt(lambda: train(run))]))
""",
        data_root,
    )
    assert result[0] > 600 * MIB
    assert result[1] == "out of memory"


@pytest.mark.thorough
@linux_only
def test_a_kernel_without_memory_for_its_code_is_out_of_memory():
    result = run_in_process("""
images, weights = torch.ones(4, 8, 24, 24), torch.ones(9, 8, 3, 3)
data_now = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (data_now, resource.RLIM_INFINITY))
try:
    torch.nn.functional.conv2d(images, weights)
except RuntimeError as error:
    print(json.dumps([str(error), limits.is_out_of_memory(error)]))
""")
    assert result == ["could not create a primitive", True]


TRIALS = [
    {"filters": 16, "task_batch": 4},
    {"algorithm": "maml", "filters": 8, "task_batch": 2, "inner_steps": 3, "inner_lr": 0.01},
    {"norm": "group", "chunk": 25, "filters": 8, "task_batch": 4},
    {"algorithm": "anil", "feature_reuse": False, "filters": 16, "task_batch": 2, "inner_steps": 3},
]


@pytest.mark.thorough
@linux_only
def test_consecutive_trials_stay_within_their_reservations(data_root):
    result = run_in_process(
        """
taken = []
for learner in json.loads(sys.argv[2]):
    run = RunConfig.model_validate({
        "learner": learner, "training": {"iterations": 2, "evaluations": 1, "val_tasks": 2},
    })
    reserved = limits.reservation(CPU, predict_trial_memory(run).whole, overhead)
    limits.cap(CPU, reserved, overhead)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    train(run)
    taken.append([reserved, high_water_mark()])
print(json.dumps(taken))
""",
        data_root,
        json.dumps([*TRIALS, TRIALS[0]]),
    )
    assert all(taken <= reserved for reserved, taken in result)


@pytest.mark.thorough
@linux_only
def test_overhead_is_the_memory_of_a_process_before_training():
    overhead, peak = run_in_process("""
print(json.dumps([overhead, high_water_mark()]))
""")
    assert 100 * MIB < overhead <= peak < overhead + 64 * MIB


@given(
    st.sampled_from([torch.device("cpu"), torch.device("cuda")]),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.integers(0, 2**32),
)
def test_reservations_grow_with_the_prediction_and_are_never_below_it(
    device, predicted, more, overhead
):
    reserved = limits.reservation(device, predicted, overhead)
    assert reserved % MIB == 0
    assert reserved >= predicted + overhead
    assert limits.reservation(device, predicted + more, overhead) >= reserved + more - MIB


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError(), KeyError("memory")])
def test_other_errors_are_not_out_of_memory(error):
    assert not limits.is_out_of_memory(error)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cap_limits_memory_on_cuda():
    device = torch.device("cuda")
    overhead = limits.process_overhead(device)
    assert overhead > 100 * MIB
    try:
        limits.cap(device, limits.reservation(device, MIB, overhead), overhead)
        with pytest.raises(torch.OutOfMemoryError) as caught:
            torch.ones(2**28, device=device)
        assert limits.is_out_of_memory(caught.value)
        limits.cap(device, limits.reservation(device, 2**30, overhead), overhead)
        torch.ones(2**28, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
