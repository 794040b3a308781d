"""Training: outer steps, evaluation, and a state from which a run continues exactly."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memmeta.algorithms import ALGORITHMS
from memmeta.algorithms.outcome import Solution
from memmeta.config import RunConfig
from memmeta.data.augment import augment
from memmeta.data.dataset import Dataset, check_episodes
from memmeta.data.episodes import Episodes
from memmeta.data.features import FeatureDataset, HasFeatures
from memmeta.errors import DivergedError
from memmeta.evaluation import Evaluation, EvaluationSplit, evaluate
from memmeta.networks import models
from memmeta.networks.frozen import FrozenBackbone
from memmeta.networks.models import MetaModel
from memmeta.peak_memory import measure_peak
from memmeta.progress import Progress

# The first step also allocates the optimiser's state, so it is not representative.
_MEASURED_STEPS = (1, 2)

# The residual of v = 0 is 1. The rest allows for rounding in means of ones.
_NOTHING_SOLVED = 1.001


class Report(NamedTuple):
    """Results at a validation."""

    iteration: int
    """Outer steps taken."""
    diagnostics: dict[str, float]
    """Means of `MetaTrainer.step`'s results over the outer steps since the last report."""
    val: Evaluation
    """Result on the validation tasks."""
    time: float
    """Unix time of the report, in seconds."""


class Tasks(NamedTuple):
    """Where tasks come from, and the model that takes their examples."""

    dataset: Dataset
    model: MetaModel


def tasks_for(config: RunConfig, dataset: Dataset, model: MetaModel) -> Tasks:
    """Where tasks come from, and the model that takes their examples.

    If the backbone is frozen, these are features and the head, so that each image passes
    through the backbone once. Augmented and rotated images differ from task to task.
    """
    learner = config.learner
    varied = learner.augment or config.data.rotations
    if varied or not (learner.backbone_is_frozen and isinstance(dataset, HasFeatures)):
        return Tasks(dataset, model)
    task = config.data.training_shape
    images = task.ways * (task.shots + task.queries) * learner.task_batch
    maker = FrozenBackbone(model, learner, learner.chunk or images)
    return Tasks(dataset.featured(maker), MetaModel(nn.Identity(), model.head))


class MetaTrainer:
    """Trains one model.

    Training episode i depends only on the seed and on i. So the state holds no random generator,
    and a resumed run equals an uninterrupted one: to the last bit on a CPU with the same number of
    threads.

    Attributes:
        iteration: outer steps taken.
        reports: one per validation, in order, including those before an interruption.
        peak_memory: the peak in bytes of the measured steps (the second and third); None before.
        seconds: wall time of `train_to_evaluation`, including the time before an interruption.

    Examples:
        >>> from memmeta.config import LearnerConfig, RunConfig, TrainingConfig
        >>> from memmeta.data.sets.sinusoid import SINUSOID
        >>> config = RunConfig(
        ...     data={"name": "sinusoid", "ways": 1},
        ...     learner=LearnerConfig(backbone="mlp"),
        ...     training=TrainingConfig(iterations=2, evaluations=1, val_tasks=4),
        ... )
        >>> trainer = MetaTrainer(config, SINUSOID, "cpu")
        >>> report = trainer.train_to_evaluation()
        >>> trainer.done
        True
    """

    def __init__(self, config: RunConfig, dataset: Dataset, device: str | torch.device) -> None:
        """Create a trainer with new weights.

        Args:
            config: everything that determines the numbers.
            dataset: the data set of `config.data.name`.
            device: where to train.

        Raises:
            InputError: a split of the data is too small for its tasks, or images are too small for
                the backbone.
        """
        self.config = config
        self.dataset = dataset
        self.device = torch.device(device)
        self.iteration = 0
        self.reports: list[Report] = []
        self.peak_memory: int | None = None
        self.seconds = 0.0
        self._since_report: list[dict[str, float]] = []  # results of the steps
        self._timed_seconds = 0.0
        self._timed_steps = 0
        self._backward = ALGORITHMS[config.learner.algorithm].backward
        check_episodes(dataset, config.data.training_shape, config.data.evaluation_shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = models.build_model(
                config.learner,
                dataset.input_shape,
                config.data.training_shape.ways,
                dataset.to_input,
            )
        # Initial weights are the same on every device. Fake tensors cannot be moved.
        self.model = model if self.device.type == "cpu" else model.to(self.device)
        if config.learner.norm == "frozen":
            self.model.calibrate(self._training_episodes().support.flatten(0, 1))
        # Without weight decay this equals Adam to the last bit.
        self.optimizer = torch.optim.AdamW(
            [{"params": self.model.learned()}],  # none if everything is frozen
            lr=config.learner.outer_lr,
            weight_decay=config.learner.weight_decay,
        )
        self._warm = self._cold_start() if config.learner.warm_start else None

    @cached_property
    def tasks(self) -> "Tasks":
        """See `tasks_for`."""
        return tasks_for(self.config, self.dataset, self.model)

    def compute_features(self, progress: Progress) -> None:
        """Compute the features of a frozen backbone for the images that training needs.

        Otherwise it happens, without progress, when they are first needed.
        """
        dataset = self.tasks.dataset
        if isinstance(dataset, FeatureDataset):
            dataset.prepare(["train", "val"] if self.learns else ["val"], progress)

    @property
    def learns(self) -> bool:
        """Whether there are parameters for the outer loop to learn."""
        return bool(self.optimizer.param_groups[0]["params"])

    @property
    def done(self) -> bool:
        """Whether the budget is used up."""
        return self.iteration >= self.config.iterations

    @property
    def note(self) -> str | None:
        """A warning about the numbers of a run that ended well, or None. See `warning`."""
        return warning(self.reports)

    @property
    def seconds_per_step(self) -> float | None:
        """Mean wall time of the outer steps whose memory was not measured; None before them."""
        return self._timed_seconds / self._timed_steps if self._timed_steps else None

    def step(self) -> dict[str, float]:
        """Take one outer step. If there is nothing to learn, it changes nothing.

        Returns:
            The step's `Diagnostics` and `gradient_norm`; empty if there is nothing to learn.

        Raises:
            DivergedError: a value is not finite. The parameters are unchanged.
        """
        start = time.perf_counter()
        if self.iteration in _MEASURED_STEPS:
            metrics, peak = measure_peak(self._step, self.held_tensors, self.device)
            self.peak_memory = max(peak, self.peak_memory or 0)
        else:
            metrics = self._step()
        if self.iteration > max(_MEASURED_STEPS):
            self._timed_seconds += time.perf_counter() - start
            self._timed_steps += 1
        self.iteration += 1
        return metrics

    def train_to_evaluation(
        self,
        on_step: Callable[[], None] = lambda: None,
        between_steps: Callable[[], None] = lambda: None,
    ) -> Report:
        """Train to the next validation point, validate, and add the report to `reports`.

        If there is nothing to learn, the only validation is that at the end.

        Do not call it once the trainer is `done`.

        Args:
            on_step: called after every outer step.
            between_steps: called after every outer step except the one before the validation. The
                state can be saved there.

        Raises:
            DivergedError: see `step`.
        """
        target, start = self._next_evaluation(), time.perf_counter()
        while self.iteration < target:
            self._since_report.append(self.step())
            on_step()
            if self.iteration < target:
                start = self._count_time(start)
                between_steps()
        steps, self._since_report = self._since_report, []
        means = {name: sum(s[name] for s in steps) / len(steps) for name in steps[0]}
        val = self.evaluate("val", self.config.training.val_tasks)
        report = Report(self.iteration, means, val, time.time())
        self.reports.append(report)
        self._count_time(start)
        return report

    def _count_time(self, since: float) -> float:
        now = time.perf_counter()
        self.seconds += now - since
        return now

    def _next_evaluation(self) -> int:
        if not self.learns:
            return self.config.iterations
        evaluations = self.config.training.evaluations
        points = (round(i * self.config.iterations / evaluations) for i in range(1, evaluations))
        return next((p for p in points if p > self.iteration), self.config.iterations)

    def _step(self) -> dict[str, float]:
        if not self.learns:
            return {}
        metrics, end = self.accumulate()
        # One transfer for all values, since each transfer waits for the device.
        values = torch.stack([*metrics.values()]).tolist()
        if not all(map(math.isfinite, values)):
            raise DivergedError(self.iteration)
        self.apply(end)
        return dict(zip(metrics, values, strict=True))

    def accumulate(self) -> tuple[dict[str, Tensor], Solution | None]:
        """First half of a step: put the hypergradient of the next tasks into `.grad`.

        Returns:
            The step's metrics as scalars on the device, and the solutions for the next warm start.
        """
        rows = self._training_indices()
        start = Solution(*(part[rows] for part in self._warm)) if self._warm else None
        self.optimizer.zero_grad()
        diagnostics, end = self._backward(
            self.tasks.model, self._training_episodes(), self.config.learner, start
        )
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        metrics = {k: v for k, v in diagnostics._asdict().items() if v is not None}
        metrics["gradient_norm"] = torch.nn.utils.get_total_norm(gradients)
        return metrics, end

    def apply(self, end: Solution | None) -> None:
        """Second half of a step: update the parameters, and keep the warm start."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._outer_lr()
        self.optimizer.step()
        rows = self._training_indices()
        for part, new in zip(self._warm or (), end or (), strict=True):
            part[rows] = new

    def _outer_lr(self) -> float:
        """Learning rate of the next outer step."""
        learner = self.config.learner
        if learner.schedule == "constant":
            return learner.outer_lr
        done = self.iteration / self.config.iterations
        return learner.outer_lr * 0.5 * (1 + math.cos(math.pi * done))

    def _training_indices(self) -> list[int]:
        """The task ids of the next step."""
        learner = self.config.learner
        first = self.iteration * learner.task_batch
        rows = range(first, first + learner.task_batch)
        return [row % learner.task_pool if learner.task_pool else row for row in rows]

    def _training_episodes(self) -> Episodes:
        indices = self._training_indices()
        shape = self.config.data.training_shape
        sampled = self.tasks.dataset.episodes(
            "train", shape, seed=self.config.seed, indices=indices
        )
        episodes = Episodes(*(part.to(self.device) for part in sampled))
        if not self.config.learner.augment:
            return episodes
        return augment(episodes, self.config.seed, indices)

    def _cold_start(self) -> Solution:
        """Return phi^0 and v = 0 for every task of the pool."""
        assert self.config.learner.task_pool is not None
        phi = self.model.initial_phi(self.config.learner.task_pool).detach()
        # Always a copy: with a pool of one task phi^0 is the head's own weight.
        phi = phi.clone(memory_format=torch.contiguous_format)
        return Solution(phi, torch.zeros_like(phi))

    def evaluate(
        self, split: EvaluationSplit, tasks: int, dataset: Dataset | None = None
    ) -> Evaluation:
        """Adapt to `tasks` fixed episodes of `split` and score their query sets.

        Args:
            split: the split.
            tasks: number of tasks.
            dataset: another data set, see `data.converted`; None: that of training.

        Raises:
            DivergedError: the mean is not finite.
        """
        used = self.tasks if dataset is None else Tasks(dataset, self.model)
        return evaluate(used.model, self.config, used.dataset, split, tasks, self.iteration)

    def held_tensors(self) -> list[Tensor]:
        """Tensors alive between steps: parameters, gradients, optimiser state, warm starts."""
        parameters = list(self.model.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        state = [value for entry in self.optimizer.state.values() for value in entry.values()]
        return [*parameters, *self.model.buffers(), *gradients, *state, *(self._warm or ())]

    def state_dict(self) -> dict[str, Any]:
        """The state that `load_state_dict` needs to continue exactly."""
        return {
            "iteration": self.iteration,
            "reports": [_plain(report) for report in self.reports],
            "peak_memory": self.peak_memory,
            "seconds": self.seconds,
            "since_report": list(self._since_report),
            "timed_seconds": self._timed_seconds,
            "timed_steps": self._timed_steps,
            "model": self.model.state_dict(),
            "warm_start": list(self._warm or ()),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the `state` of a trainer with the same config."""
        self.iteration = state["iteration"]
        self.reports = [_report(plain) for plain in state["reports"]]
        self.peak_memory = state["peak_memory"]
        self.seconds = state["seconds"]
        self._since_report = list(state["since_report"])
        self._timed_seconds = state["timed_seconds"]
        self._timed_steps = state["timed_steps"]
        self.model.load_state_dict(state["model"])
        for part, saved in zip(self._warm or (), state["warm_start"], strict=True):
            part.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])


def warning(reports: Sequence[Report]) -> str | None:
    """A warning about the numbers of a run that ended well, or None.

    It warns of a run that learned nothing, and of a mean CG residual above 1 in more than half of
    the reports: v = 0 would solve the linear system no worse.
    """
    if reports and not reports[-1].diagnostics:
        return (
            "nothing was learned: the backbone is frozen (train_last 0), and the head starts at a "
            "fixed point, so the run is one evaluation"
        )
    name = "cg_residual"
    known = [report.diagnostics[name] for report in reports if name in report.diagnostics]
    residual = statistics.median_low(known) if known else 0.0
    if residual < _NOTHING_SOLVED:
        return None
    return (
        f"the linear solve does not converge: mean CG residual {residual:.3g}, above 1; more "
        "cg_steps or a larger ridge may help"
    )


def _plain(report: Report) -> dict[str, Any]:
    """A report as dicts and numbers, for checkpoints."""
    return report._asdict() | {"val": report.val._asdict()}


def _report(plain: dict[str, Any]) -> Report:
    return Report(**plain | {"val": Evaluation(**plain["val"])})
