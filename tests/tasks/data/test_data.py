"""Data sets in memory: how they are split and told apart."""

from dataclasses import replace

import pytest
import torch

from tasks.base import SPLITS
from tasks.data.base import DataError
from tasks.data.datasets import load_dataset


def test_splits_do_not_overlap_and_do_not_change() -> None:
    """Each image has its number as label."""
    digits = load_dataset("digits")
    images = replace(digits, labels=torch.arange(1297), test_labels=torch.arange(500))
    parts = images.split(validation=297, seed=0)
    assert [len(parts[name].inputs) for name in SPLITS] == [1000, 297, 500]
    both = torch.cat([parts["train"].labels, parts["validation"].labels])
    assert sorted(both.tolist()) == list(range(1297))
    for name, source in zip(
        SPLITS, (images.inputs, images.inputs, images.test_inputs), strict=True
    ):
        assert torch.equal(parts[name].inputs, source[parts[name].labels])
    again = images.split(validation=297, seed=0)
    assert torch.equal(parts["train"].labels, again["train"].labels)
    with pytest.raises(DataError, match="leave none"):
        images.split(validation=1297, seed=0)
    untested = replace(images, test_inputs=images.test_inputs[:0], test_labels=torch.arange(0))
    with pytest.raises(DataError, match="digits has no test images"):
        untested.split(validation=297, seed=0)


@pytest.mark.parametrize("part", ["inputs", "labels", "test_inputs", "test_labels"])
def test_the_digest_is_of_the_content(part: str) -> None:
    images = load_dataset("digits")
    assert replace(images, name="other").digest == images.digest
    changed = getattr(images, part).clone()
    changed[-1] += 1
    assert replace(images, **{part: changed}).digest != images.digest


def test_the_digest_of_the_digits_is_that_of_stored_results() -> None:
    assert load_dataset("digits").digest == "988b29e99fa752de"
