"""What a sweep found."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from memmeta.errors import InputError
from memmeta.settings.arguments import AnyPath, checked
from memmeta.system.units import AnySize, parse_size
from sweeps.engine.options import tracking_store
from sweeps.engine.stores.masking import masked

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.trials import Sweep
    from memmeta.config import RunConfig
    from memmeta.exported import Confirmed


@dataclass(frozen=True)
class Best:
    """The best config of a sweep, with its results."""

    config: "RunConfig"
    """All settings of the run."""
    value: float
    """The metric on the validation tasks: the accuracy from 0 to 1, or the mean squared error."""
    interval: float
    """Half-width of the 95 % confidence interval of `value` over tasks."""
    peak_memory: int | None
    """Peak memory of a training step in bytes; None if the run has a single step."""
    confirmed: "Confirmed | None"
    """Results of stage confirm with fresh seeds: `seeds`, and the means `val` and `test`; None if
    the config was not confirmed."""
    run_id: str
    """MLflow run of the trial."""


class Result:
    """The trials of a sweep, as they were in MLflow when it was read.

    `Study.run` and `load` return it.

    Attributes:
        name: full name of the sweep, such as `cifar_fs-60steps-seed0`.
        tracking_uri: the MLflow store.

    Examples:
        >>> import sweeps
        >>> result = sweeps.load("mine")  # doctest: +SKIP
        >>> result.trials()[["stage", "inner_lr", "value"]]  # doctest: +SKIP
        >>> result.report("report/")  # doctest: +SKIP
        >>> result.export("best.yaml", top=3)  # doctest: +SKIP
    """

    def __init__(self, sweep: "Sweep", tracking_uri: str) -> None:
        self._sweep = sweep
        self.name = sweep.name
        self.tracking_uri = tracking_uri

    def __repr__(self) -> str:
        trials = self._sweep.trials
        complete = sum(trial.status == "complete" for trial in trials)
        return f"<Result {self.name}: {complete} of {len(trials)} trials complete>"

    @property
    def best(self) -> Best:
        """The best of the complete trials of explore and search, within the memory limit.

        Raises:
            InputError: there is no such trial.
        """
        from analysis.statistics.confirmed import confirmed_results

        if not self._sweep.ranking:
            raise InputError(f"{self.name}: no complete trial of explore or search")
        trial = self._sweep.ranking[0]
        assert trial.value is not None
        assert trial.val_interval is not None
        return Best(
            config=trial.config,
            value=trial.value,
            interval=trial.val_interval,
            peak_memory=trial.peak_memory_bytes,
            confirmed=confirmed_results(trial, self._sweep),
            run_id=trial.run_id,
        )

    def trials(self) -> "pd.DataFrame":
        """All trials, one row each.

        Trials of explore and search come first, from best to worst. Missing values are NaN.

        Returns:
            A table with the columns of `trials.csv`: `study` and `sweep`; the fields of
            `analysis.records.trials.Trial` under their names (`stage`, `index`, `status`, `value`,
            `val_interval`, `peak_memory_bytes`, ...); and all settings of the run under their names
            (`dataset`, `inner_lr`, `filters`, ...). docs/how-to/python.md describes each column.
        """
        from analysis.records.trial_table import data_frame

        return data_frame(self._sweep)

    @checked
    def report(
        self,
        folder: AnyPath = "report",
        *,
        reference_memory: AnySize = "1GiB",
        within: dict[str, tuple[float, float]] | None = None,
    ) -> Path:
        """Write a report: an HTML page, its figures with their data, and all trials as CSV.

        The report is also uploaded to the sweep's run in MLflow.

        Args:
            folder: output folder; files of the same name are replaced.
            reference_memory: memory of the hypervolume's reference, in bytes or as text.
            within: analyse sensitivity only in these ranges (low, high) of some dimensions.

        Returns:
            The page, `report.html`.

        Raises:
            InputError: a file cannot be written, or a range is not within the search space.
        """
        from analysis.report.build import make_report

        path = Path(folder)
        make_report(
            self._sweep,
            path,
            reference_memory=parse_size(reference_memory),
            region=within or {},
            source=[self.name, *self._store],
            upload_to=self.tracking_uri,
            say=_warn,
        )
        return path / "report.html"

    @checked
    def export(
        self,
        path: AnyPath = "best.yaml",
        top: Annotated[int, Field(ge=1)] | None = 3,
        *,
        max_memory: AnySize | None = None,
        pareto: bool = False,
    ) -> Path:
        """Write the best configs of explore and search to a file for `memmeta train`.

        Args:
            path: output file, .yaml or .json; an existing file is replaced.
            top: maximum number of configs; None: all.
            max_memory: only trials with at most this peak memory, in bytes or as text such as
                "200MiB".
            pareto: only the Pareto front of metric and peak memory.

        Returns:
            The file.

        Raises:
            InputError: no trial meets the conditions, or the file cannot be written.
        """
        from analysis.export import Selection, export_best

        limit = None if max_memory is None else parse_size(max_memory)
        selection = Selection(top, limit, pareto)
        export_best(self._sweep, selection, Path(path), self._store, say=_warn)
        return Path(path)

    @checked
    def save_model(self, path: AnyPath = "model.pt") -> Path:
        """Write the checkpoint of the best confirmed model, which `memmeta.load` reads.

        Args:
            path: output file; an existing file is replaced.

        Returns:
            The file.

        Raises:
            InputError: the sweep has no confirmed model, or the file cannot be written.
        """
        from analysis.model import read_model
        from analysis.output import write_file

        write_file(Path(path), read_model(self.tracking_uri, self._sweep))
        return Path(path)

    @property
    def _store(self) -> list[str]:
        """The store as options of the command line, with passwords masked."""
        return ["--tracking-uri", masked(self.tracking_uri)]


@checked
def load(name: str, *, storage: AnyPath = "runs", tracking_uri: str | None = None) -> Result:
    """Read the result of a sweep from MLflow.

    Args:
        name: a study, which selects its most recent sweep with a result; the full name of a sweep,
            such as `cifar_fs-60steps-seed0`; or the id of a sweep's MLflow run.
        storage: folder of all sweeps.
        tracking_uri: MLflow store; None: the environment variable MLFLOW_TRACKING_URI, else
            `mlflow.db` in `storage`.

    Raises:
        InputError: the store cannot be read, or has no such sweep.

    Examples:
        >>> import sweeps
        >>> sweeps.load("mine").best.config.learner  # doctest: +SKIP
        >>> try:
        ...     sweeps.load("mine", storage="nowhere")
        ... except sweeps.InputError as error:
        ...     print(error)  # doctest: +ELLIPSIS
        /...nowhere/mlflow.db: no such MLflow store: ...
    """
    from analysis.records.trials import read_sweep

    store = tracking_store(storage, tracking_uri)
    sweep = read_sweep(store, name)
    if sweep.alternatives:
        others = ", ".join(sweep.alternatives)
        empty = sweep.without_results
        newer = f" (without a result yet: {', '.join(empty)})" if empty else ""
        warnings.warn(f"{name}: using {sweep.name}; others are {others}{newer}", stacklevel=3)
    return Result(sweep, store)


def _warn(text: str) -> None:
    # Names the line that called `Result.report` or `Result.export`.
    warnings.warn(text, stacklevel=5)
