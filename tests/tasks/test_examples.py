"""What a task shows of a model: of known kinds, from the model's own networks."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from estimators.spaces import Bits, Space, Subsets, Trees
from tasks.base import Task
from tasks.examples import Example, Kind, Likeliest, Look, bits, images
from tasks.streams import Streams
from tests.tasks.conftest import make_task

PARTS = {
    "images": {"images", "labels"},
    "pairs": {"original", "reconstruction"},
    "histogram": {"share"},
    "bits": {"original", "reconstruction", "bits", "probability", "support"},
    "trees": {"words", "heads", "truth", "probability"},
}


def in_turn(scores: Tensor, most: int) -> Likeliest:
    """A q that is sure: all variables of row i have category i mod K."""
    z = (torch.arange(len(scores)) % scores.shape[2])[:, None, None]
    z = z.expand(-1, most, scores.shape[1])
    share = scores.new_zeros(len(z), most)
    share[:, 0] = 1
    return Likeliest(z, share, torch.ones(len(scores)))


def all_or_none(scores: Tensor, most: int) -> Likeliest:
    """The same for bits: all are on in odd rows."""
    rows, size = scores.shape
    z = (torch.arange(rows) % 2).to(scores.dtype)[:, None, None].expand(-1, most, size)
    return in_turn(scores[:, None], most)._replace(z=z)


def hanging_on_the_first(scores: Tensor, most: int) -> Likeliest:
    """The same for trees: the first word is the head of all."""
    rows, words, _ = scores.shape
    z = torch.zeros(rows, most, words, dtype=torch.int64)
    return in_turn(scores, most)._replace(z=z)


def first_items(scores: Tensor, most: int) -> Likeliest:
    """The same for subsets of two."""
    z = torch.zeros_like(scores)[:, None].repeat(1, most, 1, 1)
    z[..., :2] = 1
    return in_turn(scores, most)._replace(z=z)


LOOKS: dict[type[Space], Look] = {
    Bits: all_or_none, Subsets: first_items, Trees: hanging_on_the_first
}  # fmt: skip


@torch.no_grad()
def shown(task: Task) -> dict[str, Example]:
    return task.examples(LOOKS.get(type(task.space), in_turn), Streams(0))


def test_examples_are_small_arrays_of_known_kinds(task: Task) -> None:
    found = shown(task)
    assert found
    for example in found.values():
        assert example.kind in get_args(Kind)
        assert set(example.arrays) == PARTS[example.kind]
        assert example.title
        assert sum(array.nbytes for array in example.arrays.values()) < 100_000


def test_the_same_seed_shows_the_same(task: Task) -> None:
    one, again = shown(task), shown(task)
    for name, example in one.items():
        for part, array in example.arrays.items():
            np.testing.assert_array_equal(array, again[name].arrays[part])


def test_parameters_and_global_generator_are_left_alone(task: Task) -> None:
    before, state = {n: p.clone() for n, p in task.named_parameters()}, torch.get_rng_state()
    shown(task)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[n]) for n, p in task.named_parameters())


def test_a_task_shows_nothing_by_default(task: Task) -> None:
    assert Task.examples(task, in_turn, Streams(0)) == {}


@torch.no_grad()
def test_bitvector_shows_the_mean_image_of_the_likeliest_bits() -> None:
    task = make_task("bitvector")
    found = shown(task)
    grey = task.grey(task.part("test").inputs[:8])
    original = found["reconstructions"].arrays["original"]
    np.testing.assert_array_equal(original.reshape(8, -1), (grey * 255).round().byte().numpy())
    z = (torch.arange(8) % 2).double()[:, None].expand(-1, 4)
    levels = task.to_levels(task.decoder(z).view(8, 64, 5)).softmax(dim=2)
    mean = (levels * torch.arange(17) / 16).sum(dim=2)
    expected = (mean * 255).round().byte().numpy()
    np.testing.assert_array_equal(
        found["reconstructions"].arrays["reconstruction"].reshape(8, -1), expected
    )
    looked = found["bits"].arrays
    np.testing.assert_array_equal(looked["reconstruction"][:, 0].reshape(4, -1), expected[:4])
    np.testing.assert_array_equal(looked["bits"][:, 0], z[:4].numpy())
    np.testing.assert_array_equal(looked["probability"][:, 0], 1)


@torch.no_grad()
def test_ssvae_shows_test_images_and_samples_of_each_class() -> None:
    task = make_task("ssvae")
    found = shown(task)
    grey = task.grey(task.part("test").inputs[:8])
    original = found["reconstructions"].arrays["original"].reshape(8, -1)
    assert (original[grey == 0] == 0).all()  # binarised; black and white stay
    assert (original[grey == 1] == 255).all()
    samples = found["samples"].arrays
    assert samples["images"].shape == (10, 8, 8, 8)
    assert list(samples["labels"]) == [str(k) for k in range(10)]
    h = torch.empty(8, 8).double().normal_(generator=Streams(0).generator("samples"))
    hidden = F.relu(task.decoder_input(h) + task.decoder_table[3])
    expected = (task.decoder(hidden).sigmoid() * 255).round().byte().numpy()
    np.testing.assert_array_equal(samples["images"][3].reshape(8, -1), expected)


def test_the_game_counts_its_symbols() -> None:
    """50 episodes and 6 symbols in turn: 9, 9, 8, 8, 8, 8."""
    found = shown(make_task("signal_game"))
    counts = np.array([9, 9, 8, 8, 8, 8])
    np.testing.assert_allclose(found["usage"].arrays["share"], counts / 50, rtol=1e-6)
    entropy = -(counts / 50 * np.log(counts / 50)).sum()
    assert f"entropy {entropy:.2f} nats, given the image 0.00" in found["usage"].title
    assert list(found["symbols"].arrays["labels"]) == [
        f"{k}: {c / 50:.0%}" for k, c in enumerate(counts)
    ]
    assert found["symbols"].arrays["images"].shape == (6, 8, 8, 8)
    assert (found["symbols"].arrays["images"].max(axis=(2, 3)) == 255).all()


def test_grey_levels_are_bytes() -> None:
    made = images("", torch.linspace(-1, 2, 6).view(2, 3).expand(2, 3, -1, -1)).arrays["images"]
    assert made.shape == (2, 3, 2, 3)
    assert made[1, 2].tolist() == [[0, 0, 51], [204, 255, 255]]


def test_pictures_are_as_high_and_wide_as_the_images(task: Task) -> None:
    """64 pixels could be a square."""
    if not hasattr(task, "image_shape"):
        pytest.skip(f"{task.name} has no images")
    square, task.image_shape = shown(task), (4, 16)
    for example, before in zip(shown(task).values(), square.values(), strict=True):
        for part in {"images", "original", "reconstruction"} & example.arrays.keys():
            wide, narrow = example.arrays[part], before.arrays[part]
            assert wide.shape == (*narrow.shape[:-2], 4, 16)
            np.testing.assert_array_equal(wide.reshape(narrow.shape), narrow)


def test_bits_keep_a_support_beyond_any_integer() -> None:
    found = Likeliest(
        torch.ones(1, 2, 200), torch.ones(1, 2), torch.tensor([2.0**200], dtype=torch.float64)
    )
    assert bits("", torch.ones(1, 2, 2), found, torch.ones(1, 2, 2, 2)).arrays["support"] == [
        2.0**200
    ]
