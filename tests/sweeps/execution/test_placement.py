"""Shares of devices: the arithmetic, and trials on a real Ray cluster."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from memmeta.config import DataConfig, RunConfig
from memmeta.memory.prediction import predict_peak_memory, predict_trial_memory
from sweeps.engine.execution.nodes import trial_nodes
from sweeps.engine.execution.placement import (
    Allocation,
    Device,
    Placement,
    Refusal,
    reservation,
    share_for,
)
from sweeps.engine.ledger.entry import Slot
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study.outcome import TAGS
from tests.sweeps import two_cards
from tests.sweeps.two_cards import CARDS, MIB, OVERHEAD, STUDY

GPU = Device("a", True, 2, 10_000 * MIB, 0, 500 * MIB, 300 * MIB)
RUN = RunConfig(data=DataConfig(name="glyphs"))

CARD = Device(None, True, 1, CARDS["large"], 0, OVERHEAD, 0)


def sized(tasks: int) -> RunConfig:
    return RUN.model_copy(update={"learner": RUN.learner.model_copy(update={"task_batch": tasks})})


@given(st.integers(1, 20_000 * MIB), st.integers(20_000 * MIB, 100_000 * MIB), st.floats(0, 1))
def test_a_share_is_large_enough_and_at_most_the_whole_device(size, memory, even):
    device = Device(None, even > 0, 1, memory, even, 0, 0)
    part = share_for(size, device)
    assert size <= part * memory + 1
    assert even <= part <= 1
    assert part == even or part * memory - size < memory / 20 + 1


def test_a_trial_gets_its_predicted_memory():
    placed = Placement([GPU], cpus=3, budget=None).allocate(RUN, Slot("explore", 0))
    assert isinstance(placed, Allocation)
    needed = reservation(predict_trial_memory(RUN).whole, GPU)
    assert placed.predicted == pytest.approx(predict_peak_memory(RUN), rel=0.01)
    assert needed <= placed.reserved < needed + GPU.memory / 20
    assert placed.resources["GPU"] * GPU.memory == pytest.approx(placed.reserved, abs=1)
    assert placed.resources["CPU"] == 3
    assert placed.resources["memory"] >= GPU.host_overhead


def test_a_share_larger_than_needed_does_not_raise_the_budget():
    roomy = GPU._replace(gpu=False, least_share=0.5)
    placed = Placement([roomy], cpus=1, budget=2000 * MIB).allocate(RUN, Slot("explore", 0))
    assert placed.resources["memory"] == 5000 * MIB
    assert placed.reserved == 2000 * MIB


@pytest.mark.thorough
def test_a_trial_over_the_budget_is_refused_with_the_numbers():
    refusal = Placement([GPU], cpus=1, budget=800 * MIB).allocate(sized(64), Slot("explore", 0))
    assert isinstance(refusal, Refusal)
    assert refusal.result["status"] == "out_of_memory"
    assert refusal.result["message"].endswith("but only 800 MiB are available")
    predicted = refusal.result["predicted_memory_bytes"]
    assert predicted == pytest.approx(predict_peak_memory(sized(64)), rel=0.01)


def test_trials_go_to_the_gpu_with_the_lowest_load_on_which_they_fit():
    small, large = GPU._replace(memory=2000 * MIB, units=1), GPU._replace(accelerator="b", units=1)
    placement = Placement([small, large], cpus=1, budget=None)
    kinds = []
    for index, tasks in enumerate([8, 8, 8, 8, 8, 100]):
        resources = placement.allocate(sized(tasks), Slot("explore", index)).resources
        kinds.append(next(name[-1] for name in resources if name.startswith("accelerator_type:")))
    assert kinds.count("b") > kinds.count("a") > 0
    assert kinds[-1] == "b"
    for index in range(6):
        placement.free(Slot("explore", index))
    assert placement._allocated == {}


def test_trial_nodes_have_enough_cpus_and_a_gpu_if_any_node_has_one():
    head, small, large = ({"Resources": {"CPU": cpus}} for cpus in (0, 2, 8))
    card, thin = ({"Resources": {"CPU": cpus, "GPU": 1}} for cpus in (4, 1))
    assert trial_nodes([{"Resources": {}}, head], cpus=1) == []
    assert trial_nodes([head, small, large], cpus=2) == [small, large]
    assert trial_nodes([head, small, large, card, thin], cpus=2) == [card]
    assert trial_nodes([large, thin], cpus=2) == []


@pytest.mark.faults
def test_trials_on_two_types_of_gpu_are_packed_by_predicted_memory(sweep):
    code, output = sweep.run(script=Path(two_cards.__file__))
    assert code == 0, output
    assert "1 trial ran out of memory or would have" in output
    entries = Ledger(STUDY, 0, sweep.storage / STUDY.sweep_name(0), stages=("grid",)).finished()
    ran = 0
    for entry in entries:
        result, needed = entry.result, predict_trial_memory(entry.run).whole
        size = reservation(needed, CARD)
        if size > CARDS["large"]:
            assert entry.run.learner.task_batch == 6000
            assert (result["status"], result["step"]) == ("out_of_memory", 0)
            continue
        assert result["status"] == "complete", result
        predicted = result["predicted_memory_bytes"]
        assert predicted == pytest.approx(result["peak_memory_bytes"], rel=0.01)
        assert size <= result["reserved_memory_bytes"] <= CARDS["large"]
        if size > CARDS["small"]:
            assert entry.run.learner.task_batch == 200
        ran += 1
    assert ran == 4
    client = MlflowClient(default_uri(sweep.storage))
    experiment = client.get_experiment_by_name(STUDY.name)
    runs = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'trial'")
    assert len(runs) == 5
    for run in runs:
        assert {"predicted_memory_mib", "reserved_memory_mib"} <= run.data.metrics.keys()
        measured = "peak_memory_mib" in run.data.metrics
        assert measured == (run.data.tags[TAGS.status] == "complete")
    refused = [run for run in runs if run.data.tags[TAGS.status] == "out_of_memory"]
    assert all("predicted peak" in run.data.tags[TAGS.message] for run in refused)
