"""The folder of a sweep and its journal, on storage that disappears and comes back."""

import pickle
import shutil
import threading

import optuna
import pytest
from optuna.storages import JournalStorage

from memmeta.system.stopping import STOP
from sweeps.engine.ledger.folder import SweepFolder
from sweeps.engine.ledger.journal import ResilientJournal

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.engine.ledger.folder._POLL_SECONDS", 0.01)
    path = tmp_path / "mount" / "sweep"
    path.mkdir(parents=True)
    return SweepFolder.claimed(path)


def unmount(folder):
    folder.path.parent.rename(folder.path.parents[1] / "away")


def mount(folder):
    shutil.rmtree(folder.path.parent, ignore_errors=True)
    (folder.path.parents[1] / "away").rename(folder.path.parent)


def test_a_worker_recognises_the_folder_until_another_driver_claims_it(folder):
    workers = pickle.loads(pickle.dumps(folder))
    assert workers.is_here()
    assert not workers.asks_to_save()
    folder.ask_to_save()
    assert workers.asks_to_save()
    again = SweepFolder.claimed(folder.path)
    assert again.is_here()
    assert not again.asks_to_save()
    assert not workers.is_here()


@pytest.mark.parametrize("in_its_place", [False, True])
def test_an_empty_folder_in_its_place_is_not_recognised(folder, in_its_place):
    unmount(folder)
    if in_its_place:
        folder.path.mkdir(parents=True)
    assert not folder.is_here()
    folder.ask_to_save()
    assert folder.path.exists() == in_its_place
    mount(folder)
    assert folder.is_here()


def test_an_action_waits_until_the_folder_is_back(folder):
    said = []
    unmount(folder)
    threading.Timer(0.2, mount, [folder]).start()
    assert folder.when_available(lambda: (folder.path / "driver").exists(), said.append)
    assert len(said) == 1


def test_other_errors_are_raised(folder):
    with pytest.raises(FileNotFoundError):
        folder.when_available((folder.path / "missing").read_bytes)


def test_a_process_that_should_stop_does_not_wait(folder, monkeypatch):
    unmount(folder)
    monkeypatch.setattr(STOP, "number", 15)
    with pytest.raises(KeyboardInterrupt):
        folder.when_available(lambda: None)


def test_a_journal_on_unreliable_storage_has_every_record_once(folder, monkeypatch):
    path = folder.path / "journal.log"
    plain = ResilientJournal.__mro__[1].append_logs
    failures = iter(range(10**6))

    def flaky(self, logs):
        """Every second write is torn, and the storage disappears for a while."""
        if next(failures) % 2:
            plain(self, logs)
            return
        with path.open("ab") as file:
            file.write(b'{"op_code": 0, "half of')
        unmount(folder)
        threading.Timer(0.2, mount, [folder]).start()
        raise OSError

    monkeypatch.setattr(ResilientJournal.__mro__[1], "append_logs", flaky)
    storage = JournalStorage(ResilientJournal(str(path), folder.when_available))
    study = optuna.create_study(storage=storage, study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    monkeypatch.undo()
    again = JournalStorage(ResilientJournal(str(path), lambda act: act()))
    (reopened,) = again.get_all_studies()
    values = [trial.values for trial in again.get_all_trials(reopened._study_id)]
    assert values == [trial.values for trial in study.trials]
    assert len(values) == 3
