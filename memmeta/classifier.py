"""Learners adapted to one task: `Classifier` for images, `Regressor` for points."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from memmeta.algorithms.adapted import Adapted, groups
from memmeta.data.images import AnyImages, as_stored
from memmeta.errors import FailedError, InputError, shown
from memmeta.system.runtime import usual_modes


class Classifier:
    """A learner adapted to the classes of a support set. `Run.adapt` creates it.

    With norm `batch`, BatchNorm normalises the images that are predicted together, as in the paper
    and in the evaluation of a run: an image can get other probabilities in other company
    (transductive prediction). Images should then be predicted together, in about the mixture in
    which classes occur. With norms `frozen` and `group` each image is predicted on its own.

    Large numbers of images are predicted in groups that fit into memory: at most `group_size`
    images, every k-th one, so that images sorted by class are mixed.

    Attributes:
        classes: the labels of the support set: sorted, or in order of first appearance if they
            cannot be compared.
        group_size: images that are predicted together at most.

    Examples:
        >>> import memmeta as mm
        >>> data = mm.load_dataset("glyphs", root="data")
        >>> learner = mm.LearnerConfig(filters=4, inner_steps=5)
        >>> run = mm.train(learner, data, iterations=1, evaluations=1, val_tasks=2)
        >>> images, labels = data.test.images, ["one", "two"]
        >>> classifier = run.adapt(images[[0, 25]], labels)
        >>> classifier.classes
        ['one', 'two']
        >>> len(classifier.predict(images[:50]))
        50
        >>> classifier.predict_proba(images[:50]).shape
        (50, 2)
    """

    def __init__(
        self, adapted: Adapted, classes: Sequence[Any], input_shape: tuple[int, ...]
    ) -> None:
        self.classes = list(classes)
        self.group_size = adapted.at_once
        self._adapted = adapted
        self._input_shape = input_shape

    def predict(self, images: AnyImages) -> list[Any]:
        """The most probable class of each image.

        Args:
            images: n images of any size, see `memmeta.data.images.as_stored`.

        Returns:
            n of the labels in `classes`.

        Raises:
            InputError: an image is not accepted.
            FailedError: the scores are not finite.
        """
        return [self.classes[index] for index in self.scores(images).argmax(1).tolist()]

    def predict_proba(self, images: AnyImages) -> NDArray[np.float64]:
        """The probability of each class for each image.

        Args:
            images: see `predict`.

        Returns:
            [n, len(classes)], in the order of `classes`; rows sum to 1.

        Raises:
            InputError: an image is not accepted.
            FailedError: the scores are not finite.
        """
        probabilities: NDArray[np.float64] = self.scores(images).double().softmax(1).numpy()
        return probabilities

    @usual_modes()
    def scores(self, images: AnyImages) -> Tensor:
        """The logarithms of unnormalised probabilities, [n, len(classes)].

        Args:
            images: see `predict`.

        Raises:
            InputError: an image is not accepted.
            FailedError: the scores are not finite.
        """
        return _finite(self._adapted, as_stored(images, self._input_shape))

    def groups(self, count: int) -> list[slice]:
        """The groups in which `count` images are predicted."""
        return groups(count, self.group_size)

    def __repr__(self) -> str:
        return f"Classifier(classes={shown(self.classes)})"


class Regressor:
    """A learner adapted to the support points of a function. `Run.adapt_regression` creates it.

    Examples:
        >>> import memmeta as mm, numpy as np
        >>> learner = mm.LearnerConfig(backbone="mlp", inner_steps=5)
        >>> run = mm.train(learner, mm.load_dataset("sinusoid"), tasks=80, val_tasks=20)
        >>> x = np.linspace(-5, 5, 10)
        >>> run.adapt_regression(x, np.sin(x)).predict([0.0, 0.1, 0.2]).shape
        (3,)
    """

    def __init__(self, adapted: Adapted, input_shape: tuple[int, ...]) -> None:
        self._adapted = adapted
        self._input_shape = input_shape

    @usual_modes()
    def predict(self, points: ArrayLike) -> NDArray[np.float32]:
        """The predicted values of the function.

        Args:
            points: n points, [n, d]; also [n] if d is 1.

        Returns:
            [n].

        Raises:
            InputError: the points are not finite numbers of this shape.
            FailedError: the values are not finite.
        """
        stored = as_points(points, self._input_shape, "points")
        values: NDArray[np.float32] = _finite(self._adapted, stored)[:, 0].numpy()
        return values


def as_points(points: ArrayLike, shape: tuple[int, ...], name: str) -> Tensor:
    """Convert numbers to float32 [n, *shape].

    Args:
        points: n points. They may lack the last dimension if it is 1.
        shape: shape of a point; () for single values.
        name: the argument, for messages.

    Raises:
        InputError: these are not n finite points, n > 0.
    """
    if isinstance(points, Tensor):
        points = points.detach().cpu().numpy()
    wanted = f"{name}: [n{''.join(f', {size}' for size in shape)}] finite numbers are accepted"
    try:
        values = np.asarray(points, dtype=np.float32)
    except (TypeError, ValueError):
        raise InputError(f"{wanted}, got {shown(points)}") from None
    if values.ndim == 1 and shape == (1,):
        values = values[:, None]
    if values.ndim != 1 + len(shape) or values.shape[1:] != shape or len(values) == 0:
        raise InputError(f"{wanted}, got the shape {list(values.shape)}")
    if not np.isfinite(values).all():
        raise InputError(f"{wanted}, got {values[~np.isfinite(values)][0]}")
    return torch.from_numpy(values.copy())


def as_labels(labels: Iterable[Any], count: int) -> list[Hashable]:
    """Convert the labels of `count` images to a list of plain hashable values.

    Raises:
        InputError: their number differs, or one of them cannot be a label.
    """
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise InputError(f"support_labels: a list of labels is accepted, got {shown(labels)}")
    plain = [_plain(label) for label in labels]
    if len(plain) != count:
        raise InputError(f"support_labels: {len(plain)} labels for {count} images")
    for index, label in enumerate(plain):
        if not _is_label(label):
            raise InputError(
                f"support_labels: label {index} is {shown(label)}; hashable values such as strings "
                "or integers are accepted"
            )
    return plain


def _is_label(value: Any) -> bool:
    try:
        hash(value)
        # NaN differs from itself.
        return value is not None and bool(value == value)
    except (TypeError, ValueError):
        return False


def _plain(label: Any) -> Any:
    """A scalar of NumPy or PyTorch as a Python value; arrays as lists."""
    return label.tolist() if isinstance(label, np.generic | np.ndarray | Tensor) else label


def distinct(labels: Iterable[Hashable]) -> list[Any]:
    """The different labels, sorted if possible, otherwise in order of first appearance.

    Examples:
        >>> distinct(["dog", "cat", "dog"])
        ['cat', 'dog']
        >>> distinct(["dog", 7, "dog"])
        ['dog', 7]
    """
    found: list[Any] = list(dict.fromkeys(labels))
    try:
        return sorted(found)
    except TypeError:
        return found


def _finite(adapted: Adapted, query: Tensor) -> Tensor:
    scores = adapted.scores(query)
    if not scores.isfinite().all():
        raise FailedError(
            "the scores are not finite: adaptation diverged, or the model is damaged; a learner "
            "with a smaller inner_lr may help"
        )
    return scores
