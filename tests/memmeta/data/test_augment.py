import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memmeta.data.augment import _draw, augment
from memmeta.data.episodes import Episodes


def make_episodes(tasks, support, query, size):
    def images(n):
        return torch.randint(1, 256, (tasks, n, size, size, 3), dtype=torch.uint8)

    labels = torch.zeros(tasks, support), torch.ones(tasks, query)
    return Episodes(images(support), labels[0], images(query), labels[1])


def crops(image, padding):
    """All crops of a padded image, plain and mirrored: [crops, H, W, C]."""
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, image.shape[:2], axis=(0, 1))
    every = windows.reshape(-1, 3, *image.shape[:2]).transpose(0, 2, 3, 1)
    return np.concatenate([every, every[:, :, ::-1]])


@settings(max_examples=20)
@given(
    tasks=st.integers(1, 3),
    support=st.integers(1, 4),
    query=st.integers(1, 4),
    size=st.sampled_from([8, 15, 16]),
    seed=st.integers(0, 10**6),
)
def test_each_image_becomes_one_of_its_crops_or_mirrored_crops(tasks, support, query, size, seed):
    episodes = make_episodes(tasks, support, query, size)
    augmented = augment(episodes, seed, range(tasks))
    for part in ("support", "query"):
        before, after = getattr(episodes, part), getattr(augmented, part)
        assert after.dtype == torch.uint8
        assert after.shape == before.shape
        pairs = zip(before.flatten(0, 1).numpy(), after.flatten(0, 1).numpy(), strict=True)
        for image, crop in pairs:
            assert (crops(image, size // 8) == crop).all((1, 2, 3)).any()
    assert augmented.support_labels is episodes.support_labels
    assert augmented.query_labels is episodes.query_labels


def test_all_crops_and_mirror_images_are_equally_likely():
    image = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8, 1).expand(1, 9000, 8, 8, 3)
    episodes = Episodes(image, torch.zeros(1, 9000), image[:, :1], torch.zeros(1, 1))
    counts = augment(episodes, 0, [0]).support[0].flatten(1).unique(dim=0, return_counts=True)[1]
    assert len(counts) == 18
    # Six standard deviations.
    assert (counts - 500).abs().max() < 6 * 500**0.5


def test_augmentation_of_a_task_does_not_depend_on_its_batch():
    episodes = make_episodes(3, 4, 5, 16)
    together = augment(episodes, 7, [5, 9, 2])
    alone = augment(Episodes(*(tensor[1:2] for tensor in episodes)), 7, [9])
    assert torch.equal(together.support[1:2], alone.support)
    assert torch.equal(together.query[1:2], alone.query)


def test_augmentation_uses_other_random_numbers_than_sampling():
    # Otherwise the crop of an image would depend on which image was sampled.
    sampling = np.random.default_rng([7, 9]).integers(0, [5, 5, 2], (20, 3))
    assert not np.array_equal(_draw(7, 9, 20, 2), sampling)


@pytest.mark.parametrize(("seed", "index"), [(7, 10), (8, 9)])
def test_other_tasks_and_seeds_get_other_augmentations(seed, index):
    episodes = make_episodes(1, 20, 20, 16)
    assert not torch.equal(
        augment(episodes, seed, [index]).support, augment(episodes, 7, [9]).support
    )
