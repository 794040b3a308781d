import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memmeta.data.episodes import Episodes, Split, sample_episodes, to_float
from memmeta.errors import InputError


def split_of(sizes: list[int]) -> Split:
    """A split with classes of these sizes. The bytes of each image encode its index."""
    offsets = np.cumsum([0, *sizes])
    images = np.arange(offsets[-1], dtype=np.uint32).view(np.uint8).reshape(-1, 2, 2, 1)
    return Split(images, offsets, tuple(f"class{i}" for i in range(len(sizes))))


def numbers(images: torch.Tensor) -> np.ndarray:
    """The indices encoded in images [B, n, 2, 2, 1]."""
    return images.numpy().reshape(*images.shape[:2], 4).view(np.uint32)[..., 0]


@st.composite
def shapes(draw: st.DrawFn) -> tuple[list[int], int, int, int]:
    ways, shots, queries = draw(st.integers(1, 6)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    each = shots + queries
    sizes = draw(st.lists(st.integers(each, each + 4), min_size=ways, max_size=ways + 3))
    return sizes, ways, shots, queries


@given(shapes(), st.integers(0, 2**40), st.lists(st.integers(0, 2**40), max_size=4))
def test_tasks_have_the_right_images(shape, seed, indices):
    sizes, ways, shots, queries = shape
    split = split_of(sizes)
    episodes = sample_episodes(
        split, ways=ways, shots=shots, queries=queries, seed=seed, indices=indices
    )
    assert episodes.support.shape == (len(indices), ways * shots, 2, 2, 1)
    assert episodes.query.shape == (len(indices), ways * queries, 2, 2, 1)
    for part, labels, each in (
        (episodes.support, episodes.support_labels, shots),
        (episodes.query, episodes.query_labels, queries),
    ):
        assert part.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert labels.shape == part.shape[:2]
        for row in labels:
            assert torch.equal(torch.bincount(row, minlength=ways), torch.full((ways,), each))
    for task in range(len(indices)):
        support = numbers(episodes.support)[task]
        query = numbers(episodes.query)[task]
        both = np.concatenate([support, query])
        assert len(set(both.tolist())) == ways * (shots + queries)  # no duplicates
        classes = np.searchsorted(split.offsets, both, side="right") - 1
        labels = torch.cat([episodes.support_labels[task], episodes.query_labels[task]]).numpy()
        pairs = set(zip(classes.tolist(), labels.tolist(), strict=True))
        assert len(pairs) == ways  # labels mean the same class in support and query
        assert len({name for name, _ in pairs}) == ways


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), min_size=2, max_size=4))
def test_a_task_does_not_depend_on_its_batch(seed, indices):
    split = split_of([9] * 12)

    def sample(indices: list[int]) -> Episodes:
        return sample_episodes(split, ways=3, shots=2, queries=4, seed=seed, indices=indices)

    together = sample(indices)
    alone = [sample([index]) for index in indices]
    for name in Episodes._fields:
        expected = torch.cat([getattr(one, name) for one in alone])
        assert torch.equal(getattr(together, name), expected)


def test_seeds_and_indices_give_different_tasks():
    split = split_of([20] * 50)
    seen = {
        sample_episodes(split, ways=5, shots=1, queries=1, seed=seed, indices=[i])
        .support.numpy()
        .tobytes()
        for seed in range(10)
        for i in range(10)
    }
    assert len(seen) == 100


def test_classes_and_images_are_sampled_uniformly():
    split = split_of([6] * 8)
    episodes = sample_episodes(split, ways=4, shots=1, queries=2, seed=0, indices=range(2000))
    drawn = np.bincount(numbers(episodes.query).ravel(), minlength=48)
    expected = 2000 * 8 / 48
    # Five standard deviations of a Poisson distribution, which is slightly wider.
    assert abs(drawn - expected).max() < 5 * expected**0.5


def test_rotated_classes_are_separate_classes():
    split = split_of([4] * 3)
    episodes = sample_episodes(
        split, ways=12, shots=1, queries=3, seed=0, indices=range(20), rotations=True
    )
    both = torch.cat(
        [episodes.support.unflatten(1, (12, 1)), episodes.query.unflatten(1, (12, 3))], dim=2
    )
    for task in both.numpy():
        seen = set()
        for images in task:
            for turn in range(4):
                upright = np.ascontiguousarray(np.rot90(images, -turn, axes=(1, 2)))
                codes = upright.reshape(4, 4).view(np.uint32)[:, 0]
                if codes.max() < 12:
                    # All images of the class, with the same rotation.
                    assert sorted(codes % 4) == [0, 1, 2, 3]
                    assert len(set(codes // 4)) == 1
                    seen.add((codes[0] // 4, turn))
        assert len(seen) == 12


def test_sampling_does_not_change_between_versions():
    """Published results depend on the images that a seed and an index give."""
    episodes = sample_episodes(
        split_of([9] * 12), ways=3, shots=2, queries=1, seed=7, indices=[5, 6]
    )
    assert numbers(episodes.support).tolist() == [
        [103, 102, 48, 46, 4, 2],
        [88, 83, 105, 103, 47, 45],
    ]


@pytest.mark.parametrize(
    ("ways", "shots", "message"),
    [(4, 1, "4 ways, but the split has 3 classes"), (3, 5, r"class class1 has 6")],
)
def test_too_few_classes_or_images(ways, shots, message):
    with pytest.raises(InputError, match=message):
        sample_episodes(split_of([9, 6, 9]), ways=ways, shots=shots, queries=2, seed=0, indices=[0])


# Equal images ------------------------------------------------------------------------------------


@st.composite
def classes_with_copies(draw: st.DrawFn) -> tuple[list[list[int]], int, int, int]:
    """The number of copies of each image of each class, and the shape of a possible task."""
    ways, shots, queries = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    each = shots + queries
    copies = st.lists(st.integers(1, 3), min_size=2 * each, max_size=2 * each + 3)
    return draw(st.lists(copies, min_size=ways, max_size=ways + 2)), ways, shots, queries


def split_with_copies(classes: list[list[int]]) -> tuple[Split, np.ndarray]:
    """The split, and a number for each row that is equal for equal images."""
    sizes = [sum(copies) for copies in classes]
    plain = split_of(sizes)
    numbers_of_rows = np.concatenate(
        [100 * c + np.repeat(np.arange(len(some)), some) for c, some in enumerate(classes)]
    )
    _, first, which = np.unique(numbers_of_rows, return_index=True, return_inverse=True)
    return dataclasses.replace(plain, originals=first[which]), numbers_of_rows


@given(classes_with_copies(), st.integers(0, 2**40), st.integers(0, 2**40))
def test_support_and_query_share_no_image_and_valid_first_draws_are_kept(case, seed, first):
    classes, ways, shots, queries = case
    split, number_of = split_with_copies(classes)
    indices = range(first, first + 20)

    def rows(split: Split, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        shape = {"ways": ways, "shots": shots, "queries": queries}
        episodes = sample_episodes(split, **shape, seed=seed, indices=indices)
        return numbers(episodes.support), numbers(episodes.query)

    supports, queries_ = rows(split, indices)
    plain = zip(*rows(dataclasses.replace(split, originals=None), indices), strict=True)
    for task, (support, query) in enumerate(plain):
        for way in range(ways):
            sets = [slice(way * n, way * n + n) for n in (shots, queries)]
            ours = supports[task][sets[0]], queries_[task][sets[1]]
            before = support[sets[0]], query[sets[1]]
            assert not set(number_of[ours[0]]) & set(number_of[ours[1]])
            assert len({*ours[0], *ours[1]}) == shots + queries
            if not set(number_of[before[0]]) & set(number_of[before[1]]):
                assert np.array_equal(np.concatenate(ours), np.concatenate(before))
            else:
                same_class = np.searchsorted(
                    split.offsets, [ours[0][0], before[0][0]], side="right"
                )
                assert same_class[0] == same_class[1]
        alone = rows(split, [indices[task]])
        assert np.array_equal(alone[0][0], supports[task])
        assert np.array_equal(alone[1][0], queries_[task])


def test_resampling_makes_all_valid_draws_equally_likely():
    split, number_of = split_with_copies([[3, 3, 1, 1, 1, 1]])
    episodes = sample_episodes(split, ways=1, shots=2, queries=2, seed=0, indices=range(6000))
    support, query = number_of[numbers(episodes.support)], number_of[numbers(episodes.query)]
    drawn = Counter(
        (tuple(a), tuple(b)) for a, b in zip(support.tolist(), query.tolist(), strict=True)
    )
    # All ways to draw four of ten rows, without those with an image in both sets.
    possible = Counter(
        ((a, b), (c, d))
        for a, b, c, d in itertools.permutations(number_of.tolist(), 4)
        if not {a, b} & {c, d}
    )
    total = sum(possible.values())
    assert drawn.keys() <= possible.keys()
    for sets, count in possible.items():
        expected = 6000 * count / total
        assert abs(drawn[sets] - expected) < 5 * expected**0.5 + 1


def test_a_class_without_enough_different_images_is_named():
    split, _ = split_with_copies([[1] * 9, [8, 1], [1] * 9])
    with pytest.raises(InputError, match=r"class class1 has 9 images, 2 of them different"):
        sample_episodes(split, ways=3, shots=2, queries=3, seed=0, indices=range(3))


# Network input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("white", [1.0, 255.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_to_float_of_floats(white, dtype):
    images = torch.rand(2, 3, 4, 4, 3, generator=torch.Generator().manual_seed(0)).to(dtype) * white
    kept = images.clone()
    result = to_float(images, [100.0, 120.5, 90.25], [60.0, 70.5, 50.25], white)
    assert torch.equal(images, kept)
    expected = to_float(
        (kept.double() * 255 / white).round().to(torch.uint8), [100.0, 120.5, 90.25],
        [60.0, 70.5, 50.25],
    )  # fmt: skip
    assert result.dtype == torch.float32
    assert (result - expected).abs().max() < 0.51 / 50


@pytest.mark.parametrize(
    ("images", "white"),
    [
        (torch.zeros(2, 4, 4, 1), None),
        (torch.full((2, 4, 4, 1), 200.0), 1.0),
        (torch.full((2, 4, 4, 1), -0.1), 1.0),
        (torch.full((2, 4, 4, 1), float("nan")), 255.0),
        (torch.zeros(2, 4, 4, 1, dtype=torch.int64), None),
        (torch.zeros(2, 4, 4, 1, dtype=torch.int64), 255.0),
        (torch.zeros(2, 4, 4, 1, dtype=torch.bool), None),
        (torch.zeros(2, 4, 4, 1, dtype=torch.uint8), 255.0),
    ],
)
def test_to_float_rejects_other_images(images, white):
    with pytest.raises(InputError, match=r"^images of torch\."):
        to_float(images, [100.0], [60.0], white)


@pytest.mark.parametrize("channels", [1, 3])
def test_to_float(channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 5, 6, 7, channels), generator=generator).to(torch.uint8)
    kept = images.clone()
    mean, std = [100.0, 120.5, 90.25][:channels], [60.0, 70.5, 50.25][:channels]
    result = to_float(images, mean, std)
    assert result.shape == (2, 5, channels, 6, 7)
    assert result.dtype == torch.float32
    for channel in range(channels):
        expected = (kept[..., channel].double() - mean[channel]) / std[channel]
        torch.testing.assert_close(result[:, :, channel].double(), expected)
    assert torch.equal(images, kept)
    assert result.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
