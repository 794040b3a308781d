"""A trained run: evaluation, adaptation to new tasks, saving and loading."""

import math
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from pydantic import Field, TypeAdapter
from torch import Tensor

from memmeta import checkpoint
from memmeta.algorithms.adapted import Adapted
from memmeta.checkpoint import Saved
from memmeta.classifier import Classifier, Regressor, as_labels, as_points, distinct
from memmeta.config import RunConfig
from memmeta.data.converted import converted
from memmeta.data.dataset import AnyDataset, Dataset
from memmeta.data.images import AnyImages, as_stored
from memmeta.data.inputs import Inputs
from memmeta.errors import InputError, cannot_write
from memmeta.evaluation import Evaluation, EvaluationSplit, evaluate
from memmeta.networks import models
from memmeta.networks.models import MetaModel
from memmeta.settings.arguments import AnyPath, checked
from memmeta.settings.limits import MOST_TASKS
from memmeta.system.devices import AnyDevice, chosen_device
from memmeta.system.runtime import deterministic, usual_modes
from memmeta.training import Report, tasks_for, warning

_PIXELS_AT_ONCE = 2**21
"""Pixels, or coordinates of points, that pass through the network together: 2048 images of 32x32.
They need about half a GiB with 64 filters."""


class _Results(NamedTuple):
    """The results in the state of a trainer."""

    iteration: int
    reports: list[Report]
    peak_memory: int | None
    timed_seconds: float
    timed_steps: int


_RESULTS = TypeAdapter(_Results)


class Run:
    """A trained run. `train` and `load` create it.

    Attributes:
        config: everything that determined its numbers.
        reports: one per validation, in order.
        peak_memory: the peak of a training step, in bytes of live tensors; None if the run is
            shorter than two steps.
        seconds_per_step: mean wall time of an outer step; None if the run is too short to tell.
        note: a warning about the numbers, or None.
        device: where evaluation and adaptation compute.

    Examples:
        >>> import memmeta as mm
        >>> learner = mm.LearnerConfig(backbone="mlp", inner_steps=5)
        >>> run = mm.train(learner, mm.load_dataset("sinusoid"), tasks=80, val_tasks=20)
        >>> run.save("waves.pt")
        >>> mm.load("waves.pt").evaluate("test", tasks=20, data=mm.load_dataset("sinusoid")).tasks
        20
    """

    def __init__(
        self,
        saved: Saved,
        *,
        data: Dataset | None = None,
        device: torch.device,
        source: str = "this run",
    ) -> None:
        """Create a run from the content of a checkpoint.

        Args:
            saved: the content.
            data: the data set for evaluation, if it is not given to `evaluate`.
            device: where to compute.
            source: where the content is from, for messages.

        Raises:
            DamagedError: the content does not fit its config.
        """
        trained_on = data if data is not None and data.name == saved.config.data.name else None
        if saved.inputs is None and trained_on is not None:
            saved = saved._replace(inputs=trained_on.inputs)
        self.config: RunConfig = saved.config
        self.device = device
        self._saved = saved
        self._data = data
        self._source = source
        with checkpoint.refused_if_damaged(source):
            values = {name: saved.state[name] for name in _Results._fields}
            results = _RESULTS.validate_python(values)
            self.note = warning(results.reports)
        self.reports = results.reports
        self._iteration = results.iteration
        self.peak_memory = results.peak_memory
        steps = results.timed_steps
        self.seconds_per_step = results.timed_seconds / steps if steps > 0 else None
        self._inputs: Inputs | Dataset | None = saved.inputs or trained_on
        if self._inputs is not None:
            _ = self._model  # finds damage now rather than at the first use

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a network input: (C, H, W) for images, (d,) for points.

        Raises:
            InputError: the checkpoint is of an earlier version, and the data set is missing.
        """
        return self._known_inputs().input_shape

    @checked
    def evaluate(
        self,
        split: EvaluationSplit = "test",
        tasks: Annotated[int, Field(ge=2, le=MOST_TASKS)] | None = None,
        *,
        data: AnyDataset | None = None,
    ) -> Evaluation:
        """Adapt to tasks of a split and score their query sets.

        The tasks are the same for all runs on a data set. A run on images can be scored on another
        data set of images. Its images are converted to the size and channels of the training data
        (see `memmeta.data.images.as_stored`) and normalised like them. Ways, shots and queries are
        those of the config; rotated classes are not counted.

        Args:
            split: validation or test.
            tasks: number of tasks, at least 2; None: as the config says.
            data: the data set, of training or another one; None: that of `train` or `load`.

        Returns:
            The mean accuracy (or squared error) over tasks, the half-width of its 95 % confidence
            interval, and the number of tasks.

        Raises:
            InputError: there is no data set, or one of another kind; no such split, or too small
                for the tasks; fewer than 2 tasks.
            DivergedError: the mean is not finite.

        Examples:
            >>> import memmeta as mm
            >>> glyphs = mm.load_dataset("glyphs", root="data")
            >>> run = mm.train(mm.LearnerConfig(filters=4), glyphs, iterations=1, val_tasks=2)
            >>> run.evaluate("test", tasks=5, data=mm.load_dataset("fc100"))  # doctest: +SKIP
            Evaluation(value=0.2213333333333333, interval=0.035901712467826, tasks=5)
        """
        data = self._data if data is None else data
        name = self.config.data.name
        if data is None:
            raise InputError(
                f"{self._source}: evaluation needs the data set: give "
                f"data=load_dataset({name!r}) to load or evaluate"
            )
        defaults = {
            "val": self.config.training.val_tasks,
            "test": self.config.training.test_tasks,
        }
        tasks = defaults[split] if tasks is None else tasks
        with deterministic():
            data = data if data.name == name else self._converted(data)
            model = self._built(data) if self._inputs is None else self._model
            used = tasks_for(self.config, data, model)
            return evaluate(used.model, self.config, used.dataset, split, tasks, self._iteration)

    @usual_modes()
    def adapt(self, support_images: AnyImages, support_labels: Any) -> Classifier:
        """Adapt the learner to new classes.

        Heads that start at 0 (linear heads of memory_reduced and itd_bio) take any number of
        classes; other heads take as many as in training. Images should look like those of the
        training data: Omniglot's strokes, for example, are white on black.

        Args:
            support_images: n labelled images of any size, see `memmeta.data.images.as_stored`.
            support_labels: their n labels: any hashable values, such as strings or integers.

        Returns:
            A classifier of these classes.

        Raises:
            InputError: an image or label is not accepted; there is one class, or not the number
                that the head is made for; the run is a regression; or the checkpoint is of an
                earlier version and the data set is missing.

        Examples:
            >>> import memmeta as mm
            >>> data = mm.load_dataset("glyphs", root="data")
            >>> learner = mm.LearnerConfig(filters=4, inner_steps=5)
            >>> run = mm.train(learner, data, iterations=1, evaluations=1, val_tasks=2)
            >>> classifier = run.adapt(data.test.images[[0, 25, 50]], ["a", "b", "c"])
            >>> len(classifier.predict(data.test.images[:10]))
            10
        """
        if not self.config.data.source.has_classes:
            raise InputError(
                f"{self._source}: a regression on {self.config.data.name}: use adapt_regression"
            )
        images = as_stored(support_images, self.input_shape, "support_images")
        labels = as_labels(support_labels, len(images))
        classes = distinct(labels)
        index = {label: position for position, label in enumerate(classes)}
        indices = torch.tensor([index[label] for label in labels])
        adapted = self._adapted(self._with_ways(len(classes)), images, indices)
        return Classifier(adapted, classes, self.input_shape)

    @usual_modes()
    def adapt_regression(self, points: ArrayLike, values: ArrayLike) -> Regressor:
        """Adapt the learner to a new function.

        Args:
            points: n support points, [n, d]; also [n] if d is 1.
            values: the function's values there, [n].

        Returns:
            A predictor of the function's values at other points.

        Raises:
            InputError: these are not n finite points and values; or the run is a classification.

        Examples:
            See `memmeta.Regressor`.
        """
        if self.config.data.source.has_classes:
            raise InputError(f"{self._source}: classifies {self.config.data.name}: use adapt")
        support = as_points(points, self.input_shape, "points")
        targets = as_points(values, (), "values")
        if len(targets) != len(support):
            raise InputError(f"values: {len(targets)} values for {len(support)} points")
        return Regressor(self._adapted(self._model, support, targets), self.input_shape)

    @checked
    def save(self, path: AnyPath) -> None:
        """Write the run to a file, which `load` and `memmeta evaluate` and `predict` read.

        Raises:
            InputError: the file cannot be written.
        """
        try:
            checkpoint.save_snapshot(Path(path), self._saved)
        except OSError as error:
            raise cannot_write(Path(path), error) from None

    def __repr__(self) -> str:
        data, learner = self.config.data, self.config.learner
        text = f"Run({data.name}, {learner.algorithm}, {learner.backbone}"
        if self.reports:
            report = self.reports[-1]
            measured = data.metric.text(report.val.value, report.val.interval)
            text += f", {report.iteration} outer steps, val {data.metric.title} {measured}"
        return f"{text})"

    @cached_property
    def _model(self) -> MetaModel:
        return self._built(self._known_inputs())

    def _built(self, inputs: Inputs | Dataset) -> MetaModel:
        """The model with the saved weights.

        It is built without memory, so that a file cannot state a larger model than it contains.
        """
        build = partial(
            models.build_model,
            self.config.learner.without_weights(),
            inputs.input_shape,
            self.config.data.training_shape.ways,
            inputs.to_input,
        )
        with checkpoint.refused_if_damaged(self._source):
            with models.without_memory(self.config.learner):
                model = build()
            dtypes = {name: tensor.dtype for name, tensor in model.state_dict().items()}
            weights: dict[str, Tensor] = self._saved.state["model"]
            model.load_state_dict(weights, assign=True)
            for name, dtype in dtypes.items():
                tensor = weights[name]
                too_short = tensor.untyped_storage().nbytes() < tensor.nbytes
                if tensor.dtype != dtype or tensor.is_meta or too_short:
                    raise ValueError(f"{name} does not fit")
            if any(buffer.is_meta for buffer in model.buffers()):
                # A model of timm may have buffers that it computes and does not save.
                model = build()
                model.load_state_dict(weights)
        return model.to(self.device)

    def _known_inputs(self) -> Inputs | Dataset:
        if self._inputs is None:
            name = self.config.data.name
            raise InputError(
                f"{self._source}: lacks the shape and scale of inputs, as files of earlier "
                f"versions do: load(path, data=load_dataset({name!r})) takes them from the data "
                "set, and save adds them to the file"
            )
        return self._inputs

    def _converted(self, data: Dataset) -> Dataset:
        """Another data set, with images like those of the training data."""
        try:
            return converted(data, self._known_inputs())
        except InputError as error:
            name = self.config.data.name
            raise InputError(f"data: the run was trained on {name}: {error.message}") from None

    def _with_ways(self, ways: int) -> MetaModel:
        own = self._model.head.outputs
        if ways < 2:
            raise InputError(f"support_labels: at least 2 classes are needed, got {ways}")
        if ways != own and not self.config.learner.takes_any_ways:
            learner = self.config.learner
            raise InputError(
                f"support_labels: {ways} classes, but this head (algorithm {learner.algorithm}, "
                f"head {learner.head}) is made for the {own} classes of training; linear heads of "
                "memory_reduced and itd_bio take any number"
            )
        return models.with_outputs(self._model, ways)

    def _adapted(self, model: MetaModel, support: Tensor, labels: Tensor) -> Adapted:
        shape = models.network_shape(model.backbone, self.input_shape)
        at_once = max(1, _PIXELS_AT_ONCE // math.prod(shape[-2:]))
        labels = labels.to(self.device)
        return Adapted(model, support, labels, self.config.learner, at_once)


@checked
@usual_modes()
def load(
    path: AnyPath,
    *,
    data: AnyDataset | None = None,
    device: AnyDevice = None,
    trust_code: bool = False,
) -> Run:
    """Load a run that `Run.save`, `memmeta train` or a sweep saved.

    The file is read without running code in it. It may name code by import paths, which is
    refused unless you trust it.

    Args:
        path: the file.
        data: the data set. `Run.evaluate` needs it. `Run.adapt` needs it only if an earlier version
            of memmeta wrote the file.
        device: where to compute; None: a GPU if there is one.
        trust_code: whether to import and run the code that the file names, such as
            `my_package.nets:make`. Only for files of people whom you trust: any importable function
            can be named.

    Raises:
        DamagedError: the file is damaged, or not a checkpoint.
        InputError: it is missing, cannot be read, a later version of memmeta wrote it, or it names
            code and `trust_code` is false.

    Examples:
        >>> import memmeta as mm
        >>> data = mm.load_dataset("glyphs", root="data")
        >>> learner = mm.LearnerConfig(filters=4, inner_steps=5)
        >>> mm.train(learner, data, iterations=1, evaluations=1, val_tasks=2).save("model.pt")
        >>> classifier = mm.load("model.pt").adapt(data.test.images[[0, 25]], ["a", "b"])
        >>> classifier.predict_proba(data.test.images[:10]).shape
        (10, 2)
    """
    saved = checkpoint.load(Path(path), None if trust_code else ())
    return Run(saved, data=data, device=chosen_device(device), source=str(path))
