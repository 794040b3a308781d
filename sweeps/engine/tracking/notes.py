"""Descriptions of experiments, sweeps and trials in the MLflow UI, in Markdown."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from memmeta.system.units import short
from sweeps.engine.display.table import memory, score
from sweeps.engine.ledger.entry import Entry
from sweeps.engine.stores.models import CHECKPOINT, MODEL
from sweeps.engine.study.outcome import Stage
from sweeps.engine.tracking.views import comparison_address, runs_address, trials_address

if TYPE_CHECKING:
    from mlflow.entities import Run

NOTE_TAG = "mlflow.note.content"
"""Tag that holds the description. A copy of MLflow's constant, whose import takes seconds."""

_LINKS = "[Trials, best first]"
_OLDER_LINKS = "[Compare the trials]"

_STAGES: Mapping[Stage, str] = {
    "explore": "a point of the space-filling design",
    "search": "a proposal of the optimiser",
    "confirm": "one of the best configs, trained with a fresh seed and scored on test tasks",
    "tune": "a value of the tuned fields, tried in a cell of the grid",
    "grid": "a cell of the grid",
}


def experiment_note(sweep: "Run", title: str) -> str:
    """The description of an experiment: links to its sweeps.

    The UI shows only the first line, which links to the latest sweep.
    """
    runs = runs_address(sweep.info.experiment_id)
    return (
        f"{_links(sweep)} of {title}, the latest sweep.\n\n"
        f"[All sweeps]({runs}): each run is a sweep, and the runs nested in it are its trials. The "
        "menu Views on that page selects the trials of one sweep."
    )


def trial_note(stage: Stage, sweep: "Run", title: str) -> str:
    """The description of a trial: its stage, and links to its sweep."""
    page = f"#/experiments/{sweep.info.experiment_id}/runs/{sweep.info.run_id}"
    return f"{_links(sweep)}\n\nA trial of [{title}]({page}). Stage {stage}: {_STAGES[stage]}."


def sweep_note(sweep: "Run", study: str, best: Entry | None) -> str:
    """The description of a sweep: links to its trials, and its best config."""
    parts = [_links(sweep), f"A sweep of study {study}. Tag `memmeta.settings` has all settings."]
    if best:
        parts.insert(1, f"Best trial of explore and search: {best.name}, {_result(best)}")
    return "\n\n".join(parts)


def model_note(sweep: "Run", trial: Entry) -> str:
    """The description of a model: its origin, and an example of its use."""
    usage = (
        f'model = mlflow.pyfunc.load_model("runs:/{sweep.info.run_id}/{MODEL}")\n'
        'model.predict({"support_images": ..., "support_labels": ..., "query_images": ...})'
    )
    return (
        f"The best confirmed model of {sweep.info.run_name}, trained by {trial.name}. It adapts to "
        f"the classes of the support set and labels the query images:\n\n```python\n{usage}\n```"
        f"\n\n`{CHECKPOINT}` is a checkpoint for `memmeta.load`."
    )


def is_ours(note: str | None) -> bool:
    """Whether memmeta may write a note: there is none, or memmeta wrote its beginning."""
    return note is None or note.startswith((_LINKS, _OLDER_LINKS))


def _links(sweep: "Run") -> str:
    return (
        f"{_LINKS}({trials_address(sweep)}) · [Parallel coordinates]({comparison_address(sweep)})"
    )


def _result(best: Entry) -> str:
    metric = best.run.data.metric
    params = ", ".join(f"{name} {short(value)}" for name, value in best.params.items())
    return f"validation {metric.title} {score(metric, best)}, peak memory {memory(best)}. {params}"
