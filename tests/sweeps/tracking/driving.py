"""Sweeps without training: simulated results go through a real ledger and tracker."""

from sweeps.engine.tracking.tracker import Tracker
from tests.sweeps.ledger.test_ledger import STUDY, open_ledger

NAME = STUDY.sweep_name(0)


def told(values, status="running", step=0):
    """The result of a trial after validations with these accuracies."""
    reports = [
        {
            "step": 10 * number,
            "time": 1000.0 + number,
            "metrics": {"val_accuracy": value, "val_interval": 0.01},
        }
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


def begin(ledger, tracker, index):
    ticket = ledger.begin("explore", index, {"inner_lr": 0.1 + index}, 0)
    tracker.send(ledger.entry(ticket.slot))
    return ticket


def drive(folder, uri, *accuracies, time=1000.0, finished=True):
    """Continue the sweep in a folder with one trial per accuracy, all with equal settings.

    Returns the result of `Tracker.close`.
    """
    folder.mkdir(exist_ok=True, parents=True)
    ledger = open_ledger(folder)
    tracker = open_tracker(ledger, uri, folder)
    for accuracy in accuracies:
        ticket = begin(ledger, tracker, len(ledger.entries()))
        result = told([accuracy], "complete" if finished else "running")
        result["reports"] = [report | {"time": time} for report in result["reports"]]
        tracker.send(ledger.report(ticket, result))
    best = next(iter(ledger.ranking()), None)
    return tracker.close(ledger.entries(), True, {"trials": len(ledger.entries())}, best)
