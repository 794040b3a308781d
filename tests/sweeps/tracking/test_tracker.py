"""The tracker, with servers that die and drivers that are killed."""

import json
import shutil
import sqlite3
import time
from contextlib import closing

import pytest
from mlflow import MlflowClient

from memmeta.errors import InputError
from sweeps.engine.stores import artifacts
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study.outcome import TAGS
from sweeps.engine.tracking import tracker as tracking
from sweeps.engine.tracking.tracker import Tracker
from tests.mlflow_server import MlflowServer
from tests.sweeps.ledger.test_ledger import STUDY, open_ledger
from tests.sweeps.tracking.driving import NAME, begin, drive, open_tracker, told


def sent(tracker):
    """The state of each trial in MLflow."""
    return tracker._runs.sent if tracker._runs else {}


def store(uri):
    """Name to run status, trial status and accuracies, for every trial."""
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


def test_unsent_trials_of_a_killed_driver_are_sent_by_the_next(tmp_path):
    uri = default_uri(tmp_path)
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    for index in range(3):
        begin(ledger, tracker, index)
    while tracker._waiting or len(sent(tracker)) < 3:
        time.sleep(0.01)
    # From here on the driver no longer writes to MLflow, and then not to the ledger either.
    tickets = list(ledger._running.values())
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


def test_scores_on_data_sets_that_were_added_later_are_sent(tmp_path):
    uri = default_uri(tmp_path)
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    ticket = begin(ledger, tracker, 0)
    result = told([0.3], "complete")
    for name in ("test_accuracy", "test_accuracy_fc100"):
        # The driver may be killed before it sends the second result.
        result["metrics"] = {**result["metrics"], name: 0.25}
        result["other_digests"] = {"fc100": "f"} if "fc100" in name else {}
        tracker.send(ledger.report(ticket, result))
        assert tracker.close(ledger.entries(), True, {}) is None
        ledger = open_ledger(tmp_path)
        tracker = open_tracker(ledger, uri, tmp_path)
        ticket = ledger.begin("explore", 0, {"inner_lr": 0.1}, 0)
    (run,) = MlflowClient(uri).search_runs(
        [MlflowClient(uri).get_experiment_by_name(STUDY.name).experiment_id],
        f"tags.`{TAGS.kind}` = 'trial'",
    )
    assert run.data.metrics["test_accuracy_fc100"] == 0.25
    assert json.loads(run.data.tags[TAGS.other_digests]) == {"fc100": "f"}


def test_writing_twice_has_no_further_effect(tmp_path):
    uri = default_uri(tmp_path)
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    ticket = begin(ledger, tracker, 0)
    tracker.send(ledger.report(ticket, told([0.3, 0.4], "complete")))
    tracker.close(ledger.entries(), True, {})
    once = store(uri)
    # The state after a driver was killed between writing a trial and its tags.
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'trial'")
    client.set_tag(run.info.run_id, TAGS.reports, "0")
    client.update_run(run.info.run_id, status="RUNNING")
    ledger = open_ledger(tmp_path)
    assert open_tracker(ledger, uri, tmp_path).close(ledger.entries(), True, {}) is None
    assert store(uri) == once


def test_the_message_of_an_earlier_failure_is_removed(tmp_path):
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
def test_metrics_are_kept_during_an_outage_and_sent_later(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_LONGEST_PAUSE", 0.5)
    ledger = open_ledger(tmp_path)
    with MlflowServer(tmp_path) as server:
        tracker = open_tracker(ledger, server.address, tmp_path)
        first = begin(ledger, tracker, 0)
        tracker.send(ledger.report(first, told([0.3])))
        while tracker._waiting or first.slot not in sent(tracker):
            time.sleep(0.01)
        server.kill()
        begun = time.monotonic()
        tracker.send(ledger.report(first, told([0.3, 0.4])))
        second = begin(ledger, tracker, 1)
        tracker.send(ledger.report(second, told([0.6], "complete")))
        assert time.monotonic() - begun < 1  # the sweep does not wait
        time.sleep(3)
        server.start()
        tracker.send(ledger.report(first, told([0.3, 0.4, 0.5], "complete")))
        assert tracker.close(ledger.entries(), True, {}) is None
        assert store(server.address) == {
            "explore 000": ("FINISHED", "complete", [0.3, 0.4, 0.5]),
            "explore 001": ("FINISHED", "complete", [0.6]),
        }


@pytest.mark.faults
def test_an_unavailable_server_is_reported_and_the_next_start_sends_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_CLOSE_TIMEOUT", 1.0)
    ledger = open_ledger(tmp_path)
    with MlflowServer(tmp_path) as server:
        tracker = open_tracker(ledger, server.address, tmp_path)
        ticket = begin(ledger, tracker, 0)
        while tracker._waiting or ticket.slot not in sent(tracker):
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


def test_a_store_that_cannot_be_opened_is_reported_by_close(tmp_path):
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, "nonsense://x", tmp_path)
    with pytest.raises(InputError, match="cannot be opened as an MLflow store"):
        tracker.close(ledger.entries(), True, {})
    assert tracker.refused


def sweeps(uri):
    """Name to accuracies of all trials, for every sweep. Names of trials must be unique."""
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    found = {}
    for parent in client.search_runs(ids, f"tags.`{TAGS.kind}` = 'sweep'"):
        query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        runs = client.search_runs(ids, query, order_by=["attributes.run_name ASC"])
        assert len({run.info.run_name for run in runs}) == len(runs)
        assert parent.data.tags[TAGS.sweep] == parent.info.run_name
        assert {run.data.tags[TAGS.sweep] for run in runs} <= {parent.info.run_name}
        assert parent.info.run_name not in found
        found[parent.info.run_name] = [run.data.metrics["val_accuracy"] for run in runs]
    return found


def forget_identities(uri, *folders):
    """Turn records into those of a version that identified sweeps by their names."""
    client = MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == STUDY.name]
    for run in client.search_runs([experiment.experiment_id]):
        for tag in (TAGS.identity, TAGS.sequence):
            if tag in run.data.tags:
                client.delete_tag(run.info.run_id, tag)
    for folder in folders:
        (folder / "ledger.id").unlink()


def test_sweeps_of_one_name_keep_to_their_own_runs(tmp_path, uri):
    ann, ben = tmp_path / "ann", tmp_path / "ben"
    drive(ann, uri, 0.1)
    drive(ben, uri, 0.2)
    drive(ann, uri, 0.3)
    drive(ben, uri, 0.4)
    assert sweeps(uri) == {NAME: [0.1, 0.3], f"{NAME}#2": [0.2, 0.4]}
    shutil.rmtree(ann)
    drive(ann, uri, 0.5)
    assert sweeps(uri) == {NAME: [0.1, 0.3], f"{NAME}#2": [0.2, 0.4], f"{NAME}#3": [0.5]}


@pytest.mark.parametrize("finished", [True, False])
def test_records_without_identity_are_adopted_by_their_sweep(tmp_path, uri, finished):
    ann = tmp_path / "ann"
    drive(ann, uri, 0.1, 0.2, finished=finished)
    forget_identities(uri, ann)
    drive(ann, uri, 0.3)
    assert sweeps(uri) == {NAME: [0.1, 0.2, 0.3]}


def test_records_without_identity_are_not_adopted_by_a_namesake(tmp_path, uri):
    """Not even if it has equal settings and more trials."""
    ann, ben = tmp_path / "ann", tmp_path / "ben"
    drive(ann, uri, 0.1)
    forget_identities(uri, ann)
    drive(ben, uri, 0.1, 0.2, time=2000.0)
    assert sweeps(uri) == {NAME: [0.1], f"{NAME}#2": [0.1, 0.2]}
    drive(ann, uri, 0.3)
    assert sweeps(uri) == {NAME: [0.1, 0.3], f"{NAME}#2": [0.1, 0.2]}


def test_a_copy_of_a_folder_that_diverges_gets_its_own_run(tmp_path, uri):
    ann, copy = tmp_path / "ann", tmp_path / "copy"
    drive(ann, uri, 0.1)
    shutil.copytree(ann, copy)
    drive(ann, uri, 0.2)
    drive(copy, uri, 0.3, time=2000.0)
    drive(ann, uri, 0.4)
    drive(copy, uri)
    assert sweeps(uri) == {NAME: [0.1, 0.2, 0.4], f"{NAME}#2": [0.1, 0.3]}


@pytest.mark.parametrize("parent", ["new/artifacts", "elsewhere/artifacts"])
def test_artifacts_of_older_storages_move_with_them_and_others_stay(tmp_path, uri, parent):
    """Older versions did not record that the artifacts of an experiment are in the storage."""
    client = MlflowClient(uri)
    place = (tmp_path / parent).as_uri()
    run = client.create_run(client.create_experiment("e", place))
    if parent.startswith("new"):
        client.set_tag(run.info.run_id, TAGS.kind, "trial")
    artifacts.follow(uri)
    client.log_text(run.info.run_id, "words", "page.html")
    (page,) = tmp_path.rglob("page.html")
    moved = page.is_relative_to(tmp_path / "shared/artifacts")
    assert moved == parent.startswith("new")


def test_a_trial_whose_run_was_deleted_is_written_again(tmp_path, uri):
    ann = tmp_path / "ann"
    drive(ann, uri, 0.1, 0.2)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    run, _ = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'trial'")
    client.delete_run(run.info.run_id)
    drive(ann, uri, 0.3)
    assert sweeps(uri) == {NAME: [0.1, 0.2, 0.3]}


@pytest.mark.parametrize("tag", [TAGS.index, TAGS.reports])
def test_a_changed_tag_of_a_trial_is_reported_with_its_run_and_deleting_it_helps(
    tmp_path, uri, tag
):
    ann = tmp_path / "ann"
    drive(ann, uri, 0.1, 0.2)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    run, _ = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'trial'")
    client.set_tag(run.info.run_id, tag, "x")
    with pytest.raises(InputError, match=f"run {run.info.run_id}: a tag of memmeta was changed"):
        drive(ann, uri, 0.3)
    client.delete_run(run.info.run_id)
    drive(ann, uri, 0.4)
    assert len(sweeps(uri)[NAME]) == 4


def test_a_changed_sequence_number_of_another_sweep_is_ignored(tmp_path, uri):
    drive(tmp_path / "bob", uri, 0.1)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'sweep'")
    client.set_tag(run.info.run_id, TAGS.sequence, "x")
    drive(tmp_path / "ann", uri, 0.2)
    assert sweeps(uri) == {NAME: [0.1], f"{NAME}#2": [0.2]}


def test_a_deleted_sweep_run_is_reported_with_two_solutions(tmp_path, uri):
    ann = tmp_path / "ann"
    drive(ann, uri, 0.1)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'sweep'")
    client.delete_run(run.info.run_id)
    with pytest.raises(InputError, match=f"restore --run-id {run.info.run_id}.*another experiment"):
        drive(ann, uri, 0.2)
    assert len(client.search_runs([experiment.experiment_id])) == 1  # the trial, once
    client.restore_run(run.info.run_id)
    drive(ann, uri)
    assert sweeps(uri) == {NAME: [0.1, 0.2]}


def test_a_sweep_whose_run_was_deleted_permanently_adopts_its_trials(tmp_path, uri):
    ann = tmp_path / "ann"
    drive(ann, uri, 0.1)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'sweep'")
    client.delete_run(run.info.run_id)
    # Like `mlflow gc`, which takes seconds to start.
    client._tracking_client.store._hard_delete_run(run.info.run_id)
    drive(ann, uri, 0.2)
    assert sweeps(uri) == {NAME: [0.1, 0.2]}
    assert len(client.search_runs([experiment.experiment_id])) == 3


def test_a_sweep_all_of_whose_runs_were_deleted_is_written_again(tmp_path, uri):
    ann = tmp_path / "ann"
    drive(ann, uri, 0.1)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    for run in client.search_runs([experiment.experiment_id]):
        client.delete_run(run.info.run_id)
    drive(ann, uri, 0.2)
    assert sweeps(uri) == {NAME: [0.1, 0.2]}


def test_a_deleted_experiment_is_reported_with_two_solutions(tmp_path, uri):
    ann = tmp_path / "ann"
    drive(ann, uri, 0.1)
    client = MlflowClient(uri)
    number = client.get_experiment_by_name(STUDY.name).experiment_id
    client.delete_experiment(number)
    with pytest.raises(InputError, match=f"experiments restore -x {number}.*another experiment"):
        drive(ann, uri, 0.2)
    ledger = open_ledger(ann)
    tracker = Tracker(ledger, NAME, uri, "another", ann)
    assert tracker.close(ledger.entries(), True, {}) is None
    assert sweeps(uri) == {NAME: [0.1, 0.2]}
    client.delete_experiment(client.get_experiment_by_name("another").experiment_id)
    client.restore_experiment(number)
    drive(ann, uri, 0.3)
    assert sweeps(uri) == {NAME: [0.1, 0.2, 0.3]}


def test_sweeps_that_create_an_experiment_at_once_share_it(tmp_path, uri, monkeypatch):
    look = MlflowClient.get_experiment_by_name

    def look_just_before_another_makes_it(client, name):
        found = look(client, name)
        if found is None:
            client.create_experiment(name)
        return found

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", look_just_before_another_makes_it)
    assert drive(tmp_path / "ann", uri, 0.1) is None
    assert sweeps(uri) == {NAME: [0.1]}


def test_the_tracker_waits_for_a_store_that_is_locked_at_the_start(tmp_path, uri, monkeypatch):
    monkeypatch.setattr(tracking, "_LAST_PAUSE", 0.1)
    uri += "?timeout=0.01"  # the time for which SQLite itself waits
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    with closing(sqlite3.connect(tmp_path / "shared/mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        ticket = begin(ledger, tracker, 0)
        tracker.send(ledger.report(ticket, told([0.3], "complete")))
        while tracker._problem is None:
            time.sleep(0.01)
        assert "locked" in tracker._problem
        assert not tracker.refused
        other.rollback()
    assert tracker.close(ledger.entries(), True, {}) is None
    assert sweeps(uri) == {NAME: [0.3]}


def test_a_store_that_stays_locked_is_reported_and_sent_to_later(tmp_path, uri, monkeypatch):
    monkeypatch.setattr(tracking, "_LAST_PAUSE", 0.1)
    monkeypatch.setattr(tracking, "_CLOSE_TIMEOUT", 0.5)
    with closing(sqlite3.connect(tmp_path / "shared/mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        unsent = drive(tmp_path / "ann", f"{uri}?timeout=0.01", 0.3)
        other.rollback()
    assert unsent.startswith("trials not in MLflow yet: 1 (")
    assert "locked" in unsent
    assert drive(tmp_path / "ann", uri) is None
    assert sweeps(uri) == {NAME: [0.3]}


def test_the_latest_summary_is_shown_even_if_clocks_differ(tmp_path, uri, monkeypatch):
    ann = tmp_path / "ann"
    drive(ann, uri, 0.1)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    drive(ann, uri, 0.2)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'sweep'")
    assert run.data.metrics["trials"] == 2


def test_settings_of_later_stages_are_sent(tmp_path, uri):
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    begin(ledger, tracker, 0)
    while tracker._waiting or not sent(tracker):
        time.sleep(0.01)
    ticket = ledger.begin("confirm", 0, {"inner_lr": 0.1}, 1)
    tracker.send(ledger.entry(ticket.slot))
    tracker.close(ledger.entries(), True, {})
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'sweep'")
    assert set(json.loads(run.data.tags[TAGS.settings])) == {"explore", "confirm"}
