"""Data sets in memory: how they are split and told apart."""

from dataclasses import replace

import pytest
import torch

from tasks.data import DataError
from tasks.datasets import load_dataset


def test_splits_do_not_overlap_and_do_not_change() -> None:
    images = load_dataset("digits")
    parts = images.split(validation=297, seed=0)
    assert [len(parts[name].inputs) for name in ("train", "validation", "test")] == [1000, 297, 500]
    both = torch.cat([parts["train"].inputs, parts["validation"].inputs])
    assert torch.equal(both.long().sum(dim=0), images.inputs.long().sum(dim=0))
    again = images.split(validation=297, seed=0)
    assert torch.equal(parts["train"].inputs, again["train"].inputs)
    with pytest.raises(DataError, match="leave none"):
        images.split(validation=1297, seed=0)


@pytest.mark.parametrize("part", ["inputs", "labels", "test_inputs", "test_labels"])
def test_the_digest_is_of_the_content(part: str) -> None:
    images = load_dataset("digits")
    assert replace(images, name="other").digest == images.digest
    changed = getattr(images, part).clone()
    changed[-1] += 1
    assert replace(images, **{part: changed}).digest != images.digest


def test_the_digest_of_the_digits_is_that_of_stored_results() -> None:
    assert load_dataset("digits").digest == "988b29e99fa752de"
