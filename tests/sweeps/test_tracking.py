"""What MLflow is told, through servers that die and drivers that are killed."""

import time

import pytest
from mlflow import MlflowClient

from memmeta.errors import InputError
from sweeps.engine import tracking
from sweeps.engine.outcome import TAGS
from sweeps.engine.store import default_uri
from sweeps.engine.tracking import Tracker
from tests.mlflow_server import MlflowServer
from tests.sweeps.test_ledger import STUDY, open_ledger

NAME = STUDY.sweep_name(0)


@pytest.fixture(autouse=True)
def no_workers_to_wait_for(monkeypatch):
    monkeypatch.setattr(tracking, "_HEAD_START", 0.0)


def told(values, status="running", step=0):
    """What a trial says that was validated so often, with these accuracies."""
    reports = [
        {"step": 10 * number, "time": 1000.0 + number, "metrics": {"val_accuracy": value}}
        for number, value in enumerate(values, 1)
    ]
    return {
        "status": status,
        "step": step or 10 * len(values),
        "metrics": reports[-1]["metrics"] if reports else {},
        "reports": reports,
        "peak_memory_bytes": 2**20,
        "predicted_memory_bytes": 2**20,
        "reserved_memory_bytes": 2**22,
        "seconds_per_step": 0.5,
        "seconds": 5.0,
        "commit": "c",
        "hardware": "h",
        "threads": 1,
        "data_digest": "d",
    }


def open_tracker(ledger, uri, tmp_path):
    return Tracker(ledger, NAME, uri, STUDY.name, tmp_path / "artifacts")


def store(uri):
    """Name to status, status of the trial, and accuracies, of every trial's run."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    runs = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'trial'")
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {
        run.info.run_name: (
            run.info.status,
            run.data.tags[TAGS.status],
            [m.value for m in client.get_metric_history(run.info.run_id, "val_accuracy")],
        )
        for run in runs
    }


def begin(ledger, tracker, index):
    ticket = ledger.begin("explore", index, {"inner_lr": 0.1 + index}, 0)
    tracker.send(ledger.entry(ticket.place))
    return ticket


def test_a_trial_is_written_report_by_report(tmp_path):
    uri = default_uri(tmp_path)
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    ticket = begin(ledger, tracker, 0)
    for values in ([0.3], [0.3, 0.4]):
        tracker.send(ledger.report(ticket, told(values)))
    tracker.send(ledger.report(ticket, told([0.3, 0.4, 0.5], "complete")))
    assert tracker.close(ledger.entries(), True, {"val_accuracy": 0.5}) is None
    assert store(uri) == {"explore 000": ("FINISHED", "complete", [0.3, 0.4, 0.5])}


def test_what_a_killed_driver_did_not_send_is_sent_by_the_next(tmp_path):
    uri = default_uri(tmp_path)
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    for index in range(3):
        begin(ledger, tracker, index)
    while tracker._waiting or len(tracker._sent) < 3:
        time.sleep(0.01)
    # From here on the driver is dead to MLflow, and then to the ledger.
    tickets = list(ledger._live.values())
    ledger.report(tickets[0], told([0.3, 0.4], "complete"))
    ledger.report(tickets[1], told([0.7]))
    assert {status for status, _, _ in store(uri).values()} == {"RUNNING"}
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    assert tracker.close(ledger.entries(), False, {}) is None
    assert store(uri) == {
        "explore 000": ("FINISHED", "complete", [0.3, 0.4]),
        "explore 001": ("KILLED", "interrupted", [0.7]),
        "explore 002": ("KILLED", "interrupted", []),
    }


def test_writing_twice_leaves_what_writing_once_leaves(tmp_path):
    uri = default_uri(tmp_path)
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    ticket = begin(ledger, tracker, 0)
    tracker.send(ledger.report(ticket, told([0.3, 0.4], "complete")))
    tracker.close(ledger.entries(), True, {})
    once = store(uri)
    # As if the driver had been killed before it took note of what it had written.
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'trial'")
    client.set_tag(run.info.run_id, TAGS.reports, "0")
    client.update_run(run.info.run_id, status="RUNNING")
    ledger = open_ledger(tmp_path)
    assert open_tracker(ledger, uri, tmp_path).close(ledger.entries(), True, {}) is None
    assert store(uri) == once


def test_a_trial_that_ends_well_says_nothing_of_how_it_failed_before(tmp_path):
    uri = default_uri(tmp_path)
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    ticket = begin(ledger, tracker, 0)
    tracker.send(ledger.report(ticket, told([0.3], "failed") | {"message": "a bug"}))
    tracker.close(ledger.entries(), False, {})
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    ticket = begin(ledger, tracker, 0)
    tracker.send(ledger.report(ticket, told([0.3, 0.4], "complete")))
    tracker.close(ledger.entries(), True, {})
    assert store(uri) == {"explore 000": ("FINISHED", "complete", [0.3, 0.4])}
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'trial'")
    assert run.data.tags[TAGS.message] == ""


@pytest.mark.faults
def test_metrics_of_an_outage_are_kept_and_sent_later(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_LONGEST_PAUSE", 0.5)
    ledger = open_ledger(tmp_path)
    with MlflowServer(tmp_path) as server:
        tracker = open_tracker(ledger, server.address, tmp_path)
        first = begin(ledger, tracker, 0)
        tracker.send(ledger.report(first, told([0.3])))
        while tracker._waiting or first.place not in tracker._sent:
            time.sleep(0.01)
        server.kill()
        begun = time.monotonic()
        tracker.send(ledger.report(first, told([0.3, 0.4])))
        second = begin(ledger, tracker, 1)
        tracker.send(ledger.report(second, told([0.6], "complete")))
        assert time.monotonic() - begun < 1  # the sweep does not wait for it
        time.sleep(3)
        server.start()
        tracker.send(ledger.report(first, told([0.3, 0.4, 0.5], "complete")))
        assert tracker.close(ledger.entries(), True, {}) is None
        assert store(server.address) == {
            "explore 000": ("FINISHED", "complete", [0.3, 0.4, 0.5]),
            "explore 001": ("FINISHED", "complete", [0.6]),
        }


@pytest.mark.faults
def test_a_server_that_stays_away_is_said_and_the_next_start_sends(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_PATIENCE", 1.0)
    ledger = open_ledger(tmp_path)
    with MlflowServer(tmp_path) as server:
        tracker = open_tracker(ledger, server.address, tmp_path)
        ticket = begin(ledger, tracker, 0)
        while tracker._waiting or ticket.place not in tracker._sent:
            time.sleep(0.01)
        server.kill()
        tracker.send(ledger.report(ticket, told([0.3], "complete")))
        unsent = tracker.close(ledger.entries(), True, {})
        assert unsent.startswith("trials not in MLflow yet: 1 (")
        assert "\n" not in unsent
        server.start()
        ledger = open_ledger(tmp_path)
        tracker = open_tracker(ledger, server.address, tmp_path)
        assert tracker.close(ledger.entries(), True, {}) is None
        assert store(server.address) == {"explore 000": ("FINISHED", "complete", [0.3])}


def test_a_store_that_cannot_be_opened_is_said_when_it_is_closed(tmp_path):
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, "nonsense://x", tmp_path)
    with pytest.raises(InputError, match="cannot be opened as an MLflow store"):
        tracker.close(ledger.entries(), True, {})
    assert tracker.refused
