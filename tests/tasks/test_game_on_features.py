"""The game on features of images, each of a concept."""

from pathlib import Path
from typing import cast

import pytest
import torch

from tasks.data.base import DataError
from tasks.data.datasets import load_dataset
from tasks.examples import histogram
from tasks.signal_game import Episodes, SignalGame
from tasks.streams import Streams
from tests.tasks.conftest import SMALL
from tests.tasks.files import write_features
from tests.tasks.test_examples import in_turn

STREAMS = Streams(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_features(tmp_path / "features", concepts=20)
    return tmp_path


def game_on(folder: Path, **settings: object) -> SignalGame:
    """The game in float64, on features whose largest entry is at the place of their concept."""
    chosen = SignalGame.Settings(
        **(SMALL["signal_game"] | {"dataset": "features", "validation": 100} | settings)
    )
    torch.manual_seed(0)
    return SignalGame(load_dataset("features", folder), chosen, batch_size=8).double()


def test_candidates_are_unit_vectors_of_as_many_concepts(folder: Path) -> None:
    game = game_on(folder, candidates=16, episodes=200)
    batches = [game.training_batch(0, STREAMS), *game.evaluation_batches("test", 64, STREAMS)]
    for batch in batches:
        candidates = cast(Episodes, batch).candidates
        concepts = candidates.argmax(dim=2)
        assert all(len(set(row)) == 16 for row in concepts.tolist())
        assert concepts.max() < 20
        lengths = candidates.norm(dim=2)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))
    targets = torch.cat([cast(Episodes, batch).target for batch in batches[1:]])
    assert targets.bincount().tolist() == pytest.approx([200 / 16] * 16, abs=12)
    assert len(targets) == 200


def test_each_split_has_vectors_of_its_own(folder: Path) -> None:
    game = game_on(folder, episodes=1000)
    seen = []
    for split, size in (("train", 300), ("validation", 100), ("test", 100)):
        batches = game.evaluation_batches(split, 1000, STREAMS)
        candidates = cast(Episodes, next(batches)).candidates.flatten(0, 1)
        rows = {tuple(row) for row in candidates.round(decimals=5).tolist()}
        assert len(rows) == size
        seen.append(rows)
    trained_on = cast(Episodes, game.training_batch(0, STREAMS)).candidates.flatten(0, 1)
    assert {tuple(row) for row in trained_on.round(decimals=5).tolist()} <= seen[0]
    assert not seen[0] & seen[1]
    assert not (seen[0] | seen[1]) & seen[2]


def test_fewer_concepts_than_candidates_are_refused(folder: Path) -> None:
    """Where images would do with distinct images."""
    with pytest.raises(DataError, match="train of features has 20 concepts, an episode takes 21"):
        game_on(folder, candidates=21)


@torch.no_grad()
def test_there_are_no_images_to_show(folder: Path) -> None:
    shown = game_on(folder).examples(in_turn, STREAMS)
    assert set(shown) == {"usage"}
    assert shown["usage"].kind == histogram.__name__
