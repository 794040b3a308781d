"""The ledger: the record of a sweep, from which the same command continues it."""

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import optuna
from optuna.trial import FrozenTrial, TrialState

from memmeta.config import LearnerConfig, RunConfig, check_version, completed, parse, renewed
from memmeta.errors import InputError
from sweeps.engine.ledger import stage_record
from sweeps.engine.ledger.entry import Entry, RunningTrial, Slot
from sweeps.engine.ledger.journal import WhenAvailable
from sweeps.engine.ledger.opening import (
    check_not_emptied,
    damage_in_one_line,
    open_storage,
    read_identity,
    write_identity,
)
from sweeps.engine.ledger.settings import Settings, check_settings
from sweeps.engine.ledger.stage_record import StageRecord, open_stage, result_of, status_of
from sweeps.engine.study import design, space
from sweeps.engine.study.objective import Objective
from sweeps.engine.study.outcome import Stage
from sweeps.engine.study.result import TrialResult
from sweeps.engine.study.samplers import make_sampler
from sweeps.engine.study.study import Study

STAGES: tuple[Stage, ...] = get_args(Stage)

_PROPOSALS = 5
"""How often the sampler is asked for new params before a point of the Sobol design is used."""


class Ledger:
    """The record of a sweep: an Optuna study for each stage, in a journal file or a database.

    A trial is open from `begin` or `propose` until its last `report`. Trials that are open when a
    ledger is opened were interrupted: their Optuna trials fail, and they run again in the same
    slots. Trials that have their final result never run again.

    Attributes:
        study: the study, as it continues the record.
        seed: seed of the sweep.
        objective: the study's objective.
        identity: unique id of the sweep's folder.
    """

    def __init__(
        self,
        study: Study,
        seed: int,
        folder: Path,
        url: str | None = None,
        stages: Sequence[Stage] = STAGES,
        name: str | None = None,
        when_available: WhenAvailable = lambda action: action(),
    ) -> None:
        """Open the ledger of a sweep, or start one.

        Args:
            study: the study.
            seed: seed of the sweep.
            folder: folder of the sweep, which holds the journal.
            url: SQLAlchemy URL of a database that holds the ledger instead.
            stages: the stages to run.
            name: name of the sweep; default: `Study.sweep_name`.
            when_available: runs reads and writes of the journal, such as
                `SweepFolder.when_available`.

        Raises:
            InputError: the sweep was started with other settings, its record belongs to another
                folder, or the record cannot be read.
        """
        self.seed = seed
        self._name = name or study.sweep_name(seed)
        self._running: dict[Slot, RunningTrial] = {}
        self._reopened: set[Slot] = set()
        # Caches. Runs and final results never change.
        self._runs: dict[Slot, RunConfig] = {}
        self._slots_by_key: defaultdict[str, list[Slot]] = defaultdict(list)
        self._finished: dict[Slot, Entry] = {}
        self._ranking: list[Entry] | None = None
        self._storage = open_storage(folder, url, when_available)
        with damage_in_one_line(folder):
            summaries = optuna.get_all_study_summaries(self._storage)
            recorded = {summary.study_name: summary.user_attrs for summary in summaries}
        self.identity = read_identity(folder)
        self._owner = None if url is None else self.identity
        for stage in STAGES:
            attributes = recorded.get(self._study_name(stage), {})
            if attributes.get(stage_record.FOLDER, self._owner) != self._owner:
                raise InputError(
                    f"ledger: {self._name} in this database belongs to another folder than "
                    f"{folder}. Give the storage of that folder, or another database"
                )
        self.study = study
        self.objective = Objective(study.data.metric, study.objective, study.memory_limit)
        self._stages = {
            stage: self._open_stage(stage)
            for stage in STAGES
            if self._study_name(stage) in recorded
        }
        if not self._stages:
            check_not_emptied(folder)
        with damage_in_one_line(folder):
            for stage, record in self._stages.items():
                check_version(record.optuna_study.user_attrs, f"{folder}: stage {stage}")
            self.study = study.continuing(self.settings.values())
            for stage in stages:
                check_settings(stage, self._current_settings(stage), self.settings, folder)
        write_identity(folder, self.identity)
        with damage_in_one_line(folder):
            for stage, record in self._stages.items():
                record.settle(self.objective)
                trials = record.trials()
                for index, number in record.numbers.items():
                    self._run(Slot(stage, index), trials[number].user_attrs)
            self.ranking()

    @property
    def settings(self) -> dict[Stage, Settings]:
        """The settings with which each stage was started."""
        return {
            stage: record.settings
            for stage, record in self._stages.items()
            if record.settings is not None
        }

    @cached_property
    def configs(self) -> list[dict[str, Any]] | None:
        """The params of every config in the space; None if the space is large or continuous."""
        return design.all_configs(self.study)

    def entries(self, *stages: Stage) -> list[Entry]:
        """All trials of the given stages (default: all stages), ordered by stage and index."""
        entries = []
        for stage in stages or STAGES:
            if stage not in self._stages:
                continue
            record = self._stages[stage]
            cached = all(Slot(stage, index) in self._finished for index in record.numbers)
            trials = [] if cached else record.trials()
            entries += [self._entry(Slot(stage, index), trials) for index in sorted(record.numbers)]
        return entries

    def known_params(self, *stages: Stage) -> set[Hashable]:
        """`space.params_key` of all trials of the given stages."""
        return {entry.params_key for entry in self.entries(*stages)}

    def finished(self, *stages: Stage) -> list[Entry]:
        """The trials that have their final result."""
        return [entry for entry in self.entries(*stages) if entry.finished]

    def entry(self, slot: Slot) -> Entry:
        """One trial."""
        return self._entry(slot, self._stages[slot.stage].trials())

    def twin(self, trial: RunningTrial) -> Entry | None:
        """Another trial with the same run, if there is one that runs now or ended in this stage."""
        slots = [slot for slot in self._slots_by_key[trial.run.key] if slot != trial.slot]
        for slot in sorted(slots, key=lambda slot: (STAGES.index(slot.stage), slot.index)):
            entry = self.entry(slot)
            if entry.status == "running" or (entry.stage == trial.stage and entry.finished):
                return entry
        return None

    def begin(self, stage: Stage, index: int, params: Mapping[str, Any], seed: int) -> RunningTrial:
        """Start a trial with the given params, or start an interrupted trial again.

        Args:
            stage: its stage.
            index: its index in the stage, from 0; an interrupted trial keeps its index.
            params: values of the searched fields.
            seed: training seed.
        """
        record = self._started_stage(stage)
        attributes = {
            stage_record.INDEX: index,
            stage_record.PARAMS: dict(params),
            stage_record.SEED: seed,
        }
        record.optuna_study.enqueue_trial(dict(params), attributes)
        trial = record.optuna_study.ask()
        # Values of a grid need not be in the search space.
        if stage not in ("tune", "grid"):
            space.suggest(trial, self.study.space, self.study.learner)
        return self._start(stage, index, trial)

    def propose(self) -> RunningTrial:
        """Start a trial of stage search with new params from the sampler.

        If the sampler repeats known params several times, the next new point of the Sobol design is
        used. The space must have a new config: see `configs`.
        """
        record = self._started_stage("search")
        study = record.optuna_study
        record.add_explored(self.finished("explore"), self.study, self.objective)
        known = self.known_params("explore", "search")
        index = len(record.numbers)
        for attempt in range(_PROPOSALS):
            # The seed depends on the index, so that a restart does not change the proposals.
            seed = (10_000 * self.seed + index + 1_000_003 * attempt) % 2**32
            study.sampler = make_sampler(self.study.sampler, seed)
            trial = study.ask()
            params = space.suggest(trial, self.study.space, self.study.learner)
            if space.params_key(params) not in known:
                trial.set_user_attr(stage_record.PARAMS, params)
                trial.set_user_attr(stage_record.SEED, self.seed)
                trial.set_user_attr(stage_record.SAMPLER, self.study.sampler)
                # Written last: a trial without an index does not count.
                trial.set_user_attr(stage_record.INDEX, index)
                return self._start("search", index, trial)
            study.tell(trial.number, state=TrialState.FAIL)
        params = design.new_point(self.study, self.seed, index, known, self.configs)
        return self.begin("search", index, params, self.seed)

    def report(self, trial: RunningTrial, result: TrialResult) -> Entry:
        """Record a result, and close the trial if the result is final.

        If the pruner decides that the trial should stop, its status becomes `pruned`.
        """
        record = self._stages[trial.stage]
        metric = self.objective.metric.key
        if result["status"] == "running" and record.should_prune(trial, result["reports"], metric):
            result = {**result, "status": "pruned"}
        record.record(trial, result, self.objective)
        if result["status"] != "running":
            self._running.pop(trial.slot)
            self._ranking = None
        return self.entry(trial.slot)

    def release(self, trial: RunningTrial) -> Entry:
        """Stop running a trial whose worker is lost. The next driver starts it again."""
        self._running.pop(trial.slot, None)
        return self.entry(trial.slot)

    def release_all(self) -> None:
        """Release all running trials."""
        self._running.clear()

    def check_data(self, digests: Mapping[str, str]) -> None:
        """Check that all trials were trained and scored on the same data.

        Args:
            digests: SHA-256 of the data sets that are used now, by name.

        Raises:
            InputError: a trial of this sweep was trained or scored on other data.
        """
        for entry in self.entries():
            if entry.result is None:
                continue
            used = {
                **entry.result.get("other_digests", {}),
                entry.run.data.name: entry.result.get("data_digest"),
            }
            for name, digest in digests.items():
                known = used.get(name)
                if known is not None and known != digest:
                    raise InputError(
                        f"{self._name}: {entry.name} was trained or scored on other data "
                        f"({name} had the digest {str(known)[:12]}, and has {digest[:12]}). "
                        "Restore the old data, or begin a new version (option fresh)"
                    )

    def reopen(self, slots: Iterable[Slot]) -> None:
        """Let trials that are finished run again. Until they do, they count as interrupted."""
        self._reopened.update(slots)

    def ranking(self) -> list[Entry]:
        """The complete, feasible trials of explore and search, best first.

        With two objectives, only the Pareto front. The ranking is computed again only after a trial
        has ended.
        """
        if self._ranking is None:
            candidates = [
                entry
                for entry in self.finished("explore", "search")
                if entry.status == "complete" and self.objective.feasible(entry.reported)
            ]
            self._ranking = self.objective.ranked(candidates, lambda entry: entry.reported)
        return self._ranking

    def _study_name(self, stage: Stage) -> str:
        """Name of the stage's Optuna study."""
        return f"{self._name}/{stage}"

    def _open_stage(self, stage: Stage) -> StageRecord:
        name = self._study_name(stage)
        return open_stage(self._storage, name, stage, self.study, self.objective)

    def _started_stage(self, stage: Stage) -> StageRecord:
        """The record of a stage, with its settings. Created for the first trial of the stage."""
        if stage not in self._stages:
            self._stages[stage] = self._open_stage(stage)
        self._stages[stage].prepare(self._current_settings(stage), self._owner)
        return self._stages[stage]

    def _current_settings(self, stage: Stage) -> Settings:
        """The study's settings for a stage, converted as JSON converts them."""
        settings: Settings = json.loads(json.dumps(self.study.settings(stage, self.seed)))
        return settings

    def _start(self, stage: Stage, index: int, trial: optuna.Trial) -> RunningTrial:
        attributes = trial.user_attrs
        params = stage_record.params_of(attributes)
        run = self.study.run_config(params, attributes[stage_record.SEED], stage)
        running = RunningTrial(stage, index, run, trial)
        slot = running.slot
        record = self._stages[stage]
        record.numbers[index] = trial.number
        self._run(slot, attributes)
        self._running[slot] = running
        self._reopened.discard(slot)
        self._finished.pop(slot, None)
        return running

    def _entry(self, slot: Slot, trials: Sequence[FrozenTrial]) -> Entry:
        """A trial; `trials` are those of its stage, and are used only if it is not cached."""
        entry = self._finished.get(slot) or self._read(slot, trials)
        if entry.finished:
            self._finished[slot] = entry
        return replace(entry, status="interrupted") if slot in self._reopened else entry

    def _read(self, slot: Slot, trials: Sequence[FrozenTrial]) -> Entry:
        trial = trials[self._stages[slot.stage].numbers[slot.index]]
        return Entry(
            stage=slot.stage,
            index=slot.index,
            params=stage_record.params_of(trial.user_attrs),
            run=self._run(slot, trial.user_attrs),
            status=status_of(trial, slot in self._running),
            result=result_of(trial),
        )

    def _run(self, slot: Slot, attributes: Mapping[str, Any]) -> RunConfig:
        """The config of a trial, from its user attributes and the recorded settings of its stage.

        If the stage does not run now, these settings may differ from the study's.
        """
        if slot not in self._runs:
            settings = self._stages[slot.stage].optuna_study.user_attrs[stage_record.SETTINGS]
            values = {name: settings[name] for name in ("data", "learner", "training")}
            learner = renewed(LearnerConfig, values["learner"])
            values["learner"] = learner | stage_record.params_of(attributes)
            values["seed"] = attributes[stage_record.SEED]
            source = self._study_name(slot.stage)
            run = parse(RunConfig, completed(RunConfig, values), source)
            self._runs[slot] = run
            self._slots_by_key[run.key].append(slot)
        return self._runs[slot]
