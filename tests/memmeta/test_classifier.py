"""Classifiers and regressors, as users call them."""

import numpy as np
import pandas as pd
import pytest
import torch

from memmeta import checkpoint
from memmeta.data.sets.sinusoid import SINUSOID
from memmeta.errors import FailedError, InputError
from memmeta.fit import train_run
from memmeta.intervals import half_width
from memmeta.run import Run


@pytest.fixture
def trained(run, dataset) -> Run:
    return train_run(run, dataset, device="cpu", progress=False)


@pytest.fixture
def waves(run) -> Run:
    settings = run.model_dump()
    settings["data"] |= {"name": "sinusoid", "ways": 1}
    settings["learner"] |= {"backbone": "mlp"}
    return train_run(type(run)(**settings), SINUSOID, device="cpu", progress=False)


def a_task(dataset, run, index=0, **shape):
    shape = run.config.data.evaluation_shape._replace(**shape)
    # The seed of validation and test tasks.
    return dataset.episodes("test", shape, seed=20_24_12_03, indices=[index])


def test_accuracy_equals_that_of_evaluation(trained, dataset):
    accuracies = []
    for index in range(4):
        task = a_task(dataset, trained, index)
        classifier = trained.adapt(task.support[0], task.support_labels[0])
        predicted = torch.tensor(classifier.predict(task.query[0]))
        accuracies.append((predicted == task.query_labels[0]).float().mean().item())
    result = trained.evaluate("test", tasks=4)
    assert result.value == np.mean(accuracies)
    assert result.interval == half_width(accuracies)
    assert result.tasks == 4


def test_probabilities_are_the_softmax_of_the_scores(trained, dataset):
    task = a_task(dataset, trained)
    classifier = trained.adapt(task.support[0], task.support_labels[0])
    probabilities = classifier.predict_proba(task.query[0])
    scores = classifier.scores(task.query[0]).double().numpy()
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-12)
    assert classifier.predict(task.query[0]) == probabilities.argmax(1).tolist()


NAMES = ["zebra", "apple", "=1+1"]


@pytest.mark.parametrize(
    "labels",
    [
        lambda numbers: [NAMES[number] for number in numbers],
        lambda numbers: np.array(NAMES)[numbers],
        lambda numbers: pd.Series(NAMES)[numbers],
        lambda numbers: iter([NAMES[number] for number in numbers]),
    ],
)
def test_labels_are_given_back_in_sorted_classes(trained, dataset, labels):
    task = a_task(dataset, trained)
    numbers = task.support_labels[0].tolist()
    by_name = trained.adapt(task.support[0], labels(numbers))
    assert by_name.classes == ["=1+1", "apple", "zebra"]
    by_number = trained.adapt(task.support[0], numbers)
    # The order of the classes changes the order of sums.
    same = by_name.predict_proba(task.query[0])[:, [2, 1, 0]]
    np.testing.assert_allclose(same, by_number.predict_proba(task.query[0]), atol=1e-5)
    assert {type(label) for label in by_name.predict(task.query[0])} == {str}


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (torch.tensor([5, 3, 5]), [3, 5]),
        ([torch.tensor(5), torch.tensor(3), torch.tensor(5)], [3, 5]),
        ([np.int64(5), 3, np.int32(5)], [3, 5]),
        ([("a", 1), ("a", 0), ("a", 1)], [("a", 0), ("a", 1)]),
        (["b", 1, "a"], ["b", 1, "a"]),
    ],
)
def test_any_hashable_labels(trained, dataset, labels, classes):
    classifier = trained.adapt(dataset.test.images[:3], labels)
    assert classifier.classes == classes
    assert classifier.predict(dataset.test.images[:3])[0] in classes


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1], "2 labels for 3 images"),
        ([0, 1, 2, 3], "4 labels for 3 images"),
        ([0, 0, 0], "at least 2 classes"),
        ("abc", "a list of labels"),
        (7, "a list of labels"),
        ([0, 1, None], "label 2 is None"),
        ([0.0, float("nan"), 1.0], "label 1 is nan"),
        ([0, [1], 1], r"label 1 is \[1\]"),
        ([0, ([],), 1], r"label 1 is"),
        (np.eye(3), r"label 0 is \[1.0, 0.0, 0.0\]"),
    ],
)
def test_other_labels_are_refused(trained, dataset, labels, said):
    with pytest.raises(InputError, match=f"^support_labels: .*{said}"):
        trained.adapt(dataset.test.images[:3], labels)


@pytest.mark.parametrize("ways", [2, 5, 8])
def test_any_number_of_classes(trained, dataset, ways):
    task = a_task(dataset, trained, ways=ways)
    classifier = trained.adapt(task.support[0], task.support_labels[0])
    assert classifier.predict_proba(task.query[0]).shape == (4 * ways, ways)


@pytest.mark.parametrize("settings", [{"algorithm": "anil"}, {"head": "mlp"}])
def test_a_head_with_a_start_of_its_own_is_for_its_classes(run, dataset, settings):
    learner = run.learner.model_copy(update=settings)
    trained = train_run(
        run.model_copy(update={"learner": learner}), dataset, device="cpu", progress=False
    )
    images = dataset.test.images
    assert trained.adapt(images[:3], [0, 1, 2]).classes == [0, 1, 2]
    with pytest.raises(InputError, match=r"2 classes, but this head .* the 3 classes of training"):
        trained.adapt(images[:2], [0, 1])


def test_the_errors_of_images_name_the_argument(trained, dataset):
    with pytest.raises(InputError, match=r"^support_images: image 0: got"):
        trained.adapt(["a.png", "b.png"], [0, 1])
    classifier = trained.adapt(dataset.test.images[:2], [0, 1])
    with pytest.raises(InputError, match=r"^images: no images"):
        classifier.predict([])


def test_scores_that_are_not_finite_are_an_error(trained, dataset, tmp_path):
    trained.save(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt")
    for parameter in content["trainer"]["model"].values():
        parameter.fill_(float("nan"))
    checkpoint.write(tmp_path / "model.pt", content)
    broken = Run(checkpoint.load(tmp_path / "model.pt"), device=trained.device)
    with pytest.raises(FailedError, match="not finite"):
        broken.adapt(dataset.test.images[:2], [0, 1]).predict(dataset.test.images[:2])


def test_regression_equals_evaluation(waves):
    errors = []
    for index in range(4):
        task = a_task(SINUSOID, waves, index)
        regressor = waves.adapt_regression(task.support[0], task.support_labels[0])
        predicted = regressor.predict(task.query[0])
        errors.append(np.square(predicted - task.query_labels[0].numpy()).mean())
    assert waves.evaluate("test", tasks=4).value == pytest.approx(np.mean(errors), rel=1e-6)


def test_points_may_be_a_plain_list(waves):
    regressor = waves.adapt_regression([0.0, 1.0, 2.0], [0.0, 0.8, 0.9])
    one, column = regressor.predict([0.5, 1.5]), regressor.predict(np.array([[0.5], [1.5]]))
    np.testing.assert_array_equal(one, column)
    assert one.shape == (2,)


@pytest.mark.parametrize(
    ("points", "values", "said"),
    [
        ([], [], "points: .*shape"),
        ([0.0], [1.0, 2.0], "values: 2 values for 1 points"),
        ([[0.0, 1.0]], [0.0], "points: .*shape"),
        ([0.0], [[1.0]], "values: .*shape"),
        ([float("nan")], [0.0], "points: .*nan"),
        ([0.0], [float("inf")], "values: .*inf"),
        (["a"], [0.0], "points: .*'a'"),
        (None, [0.0], "points: "),
    ],
)
def test_other_points_are_refused(waves, points, values, said):
    with pytest.raises(InputError, match=said):
        waves.adapt_regression(points, values)


def test_each_kind_of_run_names_the_right_method(waves, trained, dataset):
    with pytest.raises(InputError, match="use adapt_regression"):
        waves.adapt(dataset.test.images[:2], [0, 1])
    with pytest.raises(InputError, match=r"use adapt$"):
        trained.adapt_regression([0.0], [0.0])
