"""Every registered task keeps the contract, and each one's cost is what its docstring says."""

from contextlib import nullcontext
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.distributions import Categorical as TorchCategorical
from torch.nn import functional as F

from estimators.spaces import Categoricals
from tasks.base import SPLITS, Task
from tasks.bitvector import BitVectorVAE
from tasks.data.base import DataError
from tasks.data.datasets import load_dataset
from tasks.data_free import DataFree
from tasks.signal_game import Episodes, SignalGame, _distinct_concepts, _distinct_images
from tasks.ssvae import Batch, SemiSupervisedVAE, by_part
from tasks.streams import Streams
from tests.tasks.conftest import make_task

STREAMS = Streams(0)


def flatten(batch: object) -> list[Tensor]:
    return [batch] if isinstance(batch, Tensor) else list(cast(tuple[Tensor, ...], batch))


def random_z(task: Task, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    every = task.space.every(torch.empty(0, dtype=torch.float64))
    return every[torch.randint(len(every), (count,), generator=generator)]


def test_a_batch_is_a_function_of_seed_and_step(task: Task) -> None:
    first, again = (flatten(task.training_batch(7, Streams(3))) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    if isinstance(task, DataFree):  # whose batches are all alike
        return
    for other in (task.training_batch(8, Streams(3)), task.training_batch(7, Streams(4))):
        assert any(not torch.equal(a, b) for a, b in zip(first, flatten(other), strict=True))


def test_evaluation_goes_over_the_split_once_or_plays_its_episodes(task: Task) -> None:
    for split in SPLITS:
        whole = [flatten(b) for b in task.evaluation_batches(split, 64, STREAMS)]
        rows = sum(len(parts[0]) for parts in whole)
        assert rows == (task.episodes or len(task.part(split).labels))


def test_cost_is_one_number_for_each_assignment(task: Task) -> None:
    encoding = task.encode(task.training_batch(0, STREAMS))
    rows = len(encoding.scores)
    assert encoding.scores.shape == (rows, *task.space.scores_shape)
    assert encoding.features.shape == (rows, task.features)
    assert not encoding.features.requires_grad
    row = torch.tensor([2, 0, 0, rows - 1])
    z = random_z(task, 4)
    costs = task.cost(encoding.context, z, row)
    assert costs.shape == (4,)
    alone = [task.cost(encoding.context, z[i : i + 1], row[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(costs, torch.cat(alone))


def test_relaxed_vertices_cost_what_hard_ones_do(task: Task) -> None:
    """One set of parameters serves both, so that a relaxation is no other model."""
    if not task.accepts_relaxed:
        pytest.skip(f"the decoder of {task.name} takes no points")
    encoding = task.encode(task.training_batch(0, STREAMS))
    row = torch.arange(8)
    z = random_z(task, 8)
    hard = task.cost(encoding.context, z, row)
    point = task.space.point(z, torch.float64)
    torch.testing.assert_close(task.cost(encoding.context, point, row), hard)


def test_every_parameter_gets_a_gradient(task: Task) -> None:
    encoding = task.encode(task.training_batch(0, STREAMS))
    loss = encoding.scores.square().sum()
    row = torch.arange(len(encoding.scores))
    loss = loss + task.cost(encoding.context, random_z(task, len(row)), row).sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.parameters())


def test_ssvae_cost_is_the_negative_elbo_of_its_networks() -> None:
    task = cast(SemiSupervisedVAE, make_task("ssvae"))
    batch = cast(Batch, task.training_batch(0, STREAMS))
    encoding = task.encode(batch)
    y = random_z(task, len(batch.x))
    label = F.one_hot(y[:, 0], 10).double()
    hidden = F.relu(task.encoder_input(batch.x) + label @ task.encoder_table)
    mean, log_std = task.encoder(hidden).chunk(2, dim=1)
    q = Normal(mean, log_std.exp())
    h = mean + log_std.exp() * batch.noise
    logits = task.decoder(F.relu(task.decoder_input(h) + label @ task.decoder_table))
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    wanted = kl_divergence(q, prior).sum(dim=1) - Bernoulli(logits=logits).log_prob(batch.x).sum(1)
    found = task.cost(encoding.context, y, torch.arange(len(y)))
    torch.testing.assert_close(found, wanted)


def test_ssvae_labelled_rows_are_those_of_the_labels() -> None:
    task = make_task("ssvae")
    batch = cast(Batch, task.training_batch(0, STREAMS))
    encoding = task.encode(batch)
    part = encoding.supervised
    assert part is not None
    others, labelled = batch.x.chunk(2)
    assert batch.labelled.tolist() == [*range(len(others), len(batch.x))]
    assert torch.equal(encoding.context[0][part.row], labelled)
    assert torch.equal(encoding.features, others)
    assert torch.equal(part.target[:, 0], batch.y)
    classifier = cast(torch.nn.Module, task.classifier)
    torch.testing.assert_close(part.scores[:, 0], classifier(labelled))
    torch.testing.assert_close(encoding.scores[:, 0], classifier(others))
    assert task.latent_weight == 900 / 100
    assert task.chance == 1 / 10


def test_ssvae_keeps_labelled_images_out_of_the_others() -> None:
    """With black and white images that spell their own number, to tell them apart."""
    task = make_task("ssvae", batch_size=90)
    pixels = task.part("train").inputs
    places = torch.arange(len(pixels))
    pixels.copy_(16 * (places[:, None] >> torch.arange(64).clamp(max=62) & 1))
    batches = [cast(Batch, task.training_batch(s, STREAMS)) for s in range(task.steps_per_epoch)]
    numbers = torch.cat([batch.x[: -len(batch.labelled)] for batch in batches])
    seen = (numbers[:, :12].long() << torch.arange(12)).sum(dim=1)
    assert sorted(seen.tolist()) == list(range(100, 1000))
    known = batches[0].x[batches[0].labelled]
    assert ((known[:, :12].long() << torch.arange(12)).sum(dim=1) < 100).all()


@pytest.mark.parametrize("draw", ["training_batch", "labelled_batch"])
def test_ssvae_labels_belong_to_their_images(draw: str) -> None:
    task = make_task("ssvae", batch_size=100)
    batch = cast(Batch, getattr(task, draw)(0, STREAMS))
    pixels, labels = task.part("train")
    counts = labels[:100].bincount(minlength=10)
    assert torch.equal(batch.y.bincount(minlength=10), counts)
    # Binarisation keeps black and white pixels, which tells the images apart.
    grey = task.grey(pixels[:100])
    labelled = batch.x[batch.labelled]
    agree = ((grey[:, None] == 0) & (labelled == 1)).any(dim=2) | (
        (grey[:, None] == 1) & (labelled == 0)
    ).any(dim=2)
    for column, y in enumerate(batch.y.tolist()):
        candidates = (~agree[:, column]).nonzero().squeeze(1)
        assert y in labels[candidates].tolist()


def test_ssvae_goes_over_its_labels_and_draws_each_step_anew() -> None:
    task = make_task("ssvae", batch_size=40)
    assert task.labelled_steps_per_epoch == 2
    first, second = (cast(Batch, task.labelled_batch(step, STREAMS)) for step in range(2))
    assert not torch.equal(first.noise, second.noise)
    assert make_task("ssvae", batch_size=101).labelled_steps_per_epoch == 1


def test_binarisation_is_drawn_anew_with_the_grey_level_as_probability() -> None:
    task = make_task("ssvae")
    pixels = task.part("train").inputs[:1]
    draws = [
        cast(SemiSupervisedVAE, task)._draw(pixels, STREAMS.generator("test", step))[0]
        for step in range(2000)
    ]
    frequency, grey = torch.cat(draws).mean(dim=0), task.grey(pixels).squeeze(0)
    assert ((frequency - grey).abs() <= 5 * (grey * (1 - grey) / 2000).sqrt()).all()


def test_ssvae_evaluates_each_batch_with_noise_of_its_own() -> None:
    task = make_task("ssvae")
    first, second, *_ = (
        cast(Batch, batch).noise for batch in task.evaluation_batches("test", 20, STREAMS)
    )
    assert not torch.equal(first, second)


def test_each_grey_level_has_its_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all 2¹⁶ outcomes of a pixel's bits, the share that turns it on is the grey level, to the
    nearest; black and white are certain."""

    def deal(integers: Tensor, *_: object, **__: object) -> Tensor:
        numbers = torch.arange(4 * len(integers)) - 2**15
        return integers.copy_(numbers.to(torch.int16).view(torch.int64))

    task = cast(SemiSupervisedVAE, make_task("ssvae"))
    monkeypatch.setattr(Tensor, "random_", deal)
    monkeypatch.setattr(task, "levels", 256)
    for grey in (0, 1, 127, 128, 254, 255):
        pixels = torch.full((2**10, 2**6), grey, dtype=torch.uint8)
        x = task._draw(pixels, torch.Generator())[0]
        assert set(x.unique().tolist()) <= {0.0, 1.0}
        assert x.sum() == round(2**16 * grey / 255)


def test_pixels_need_not_come_in_fours() -> None:
    task = cast(SemiSupervisedVAE, make_task("ssvae"))
    for shape in ((1, 1), (3, 3), (5, 1)):
        pixels = torch.full(shape, 16, dtype=torch.uint8)
        assert task._draw(pixels, torch.Generator())[0].eq(1).all()


def test_a_layer_in_two_is_the_layer() -> None:
    layer = torch.nn.Linear(7, 3)
    first, others = torch.randn(5, 4), torch.randn(5, 3)
    whole = layer(torch.cat([first, others], dim=1))
    part, table = by_part(layer, 4)
    torch.testing.assert_close(part(first) + others @ table, whole)


def test_bitvector_cost_is_a_categorical_likelihood() -> None:
    task = make_task("bitvector")
    batch = cast(Tensor, task.training_batch(0, STREAMS))
    encoding = task.encode(batch)
    z = random_z(task, len(batch))
    features = cast(torch.nn.Module, task.decoder)(z).view(len(z), 64, 5)
    logits = cast(torch.nn.Module, task.to_levels)(features)
    wanted = -TorchCategorical(logits=logits).log_prob(batch).sum(dim=1)
    found = task.cost(encoding.context, z, torch.arange(len(z)))
    torch.testing.assert_close(found, wanted)


def test_bitvector_sees_an_image_once_an_epoch_at_most() -> None:
    """With black and white images that spell their own number, to tell them apart."""
    task = make_task("bitvector", batch_size=90)
    pixels = task.part("train").inputs
    pixels.copy_(torch.arange(len(pixels))[:, None] >> torch.arange(64).clamp(max=62) & 1)
    batches = [cast(Tensor, task.training_batch(s, STREAMS)) for s in range(task.steps_per_epoch)]
    numbers = (torch.cat(batches)[:, :12].long() << torch.arange(12)).sum(dim=1)
    assert len(numbers) == len(numbers.unique()) == 990


def test_bitvector_may_start_from_the_frequencies_of_grey_levels() -> None:
    plain, started = make_task("bitvector"), make_task("bitvector", levels_bias="frequencies")
    bias = cast(torch.nn.Linear, started.to_levels).bias.detach()
    pixels = started.part("train").inputs
    for level in (0, 7, 16):
        share = ((pixels == level).sum() + 1) / (pixels.numel() + 17)
        assert bias[level].exp() == pytest.approx(float(share), rel=1e-5)
    assert bias.exp().sum() == pytest.approx(1, rel=1e-5)
    others = {**plain.state_dict()}
    assert all(
        torch.equal(value, others[name])
        for name, value in started.state_dict().items()
        if name != "to_levels.bias"
    )


def test_game_candidates_are_of_distinct_concepts_where_there_are_enough() -> None:
    labels = load_dataset("digits").labels
    generator = torch.Generator().manual_seed(0)
    chosen = _distinct_concepts(labels, 500, 8, generator)
    assert all(len(set(row)) == 8 for row in labels[chosen].tolist())
    assert len(chosen.unique()) > 900
    many = make_task("signal_game", candidates=12)
    episodes = cast(Episodes, many.training_batch(0, STREAMS))
    assert episodes.candidates.shape == (8, 12, 64)


def test_game_candidates_are_distinct_images_at_least() -> None:
    chosen = _distinct_images(20, 500, 16, torch.Generator().manual_seed(0))
    assert all(len(set(row)) == 16 for row in chosen.tolist())
    assert len(chosen.unique()) == 20
    nearly_all = _distinct_images(151, 4, 150, torch.Generator().manual_seed(0))
    assert all(len(set(row)) == 150 for row in nearly_all.tolist())


def test_a_game_on_few_classes_takes_distinct_images_whatever_their_numbers() -> None:
    digits = load_dataset("digits")
    two = replace(digits, labels=torch.where(digits.labels < 5, 3, 8))
    assert not SignalGame(two, SignalGame.Settings(candidates=4), 16).distinct_concepts
    assert SignalGame(two, SignalGame.Settings(candidates=2), 16).distinct_concepts


def test_game_draws_every_set_of_candidates_as_often() -> None:
    drawn = 12_000
    chosen = _distinct_images(5, drawn, 3, torch.Generator().manual_seed(0)).sort(dim=1).values
    _, counts = chosen.unique(dim=0, return_counts=True)
    assert len(counts) == 10
    expected = drawn / 10
    assert ((counts - expected).abs() < 5 * (expected * 0.9) ** 0.5).all()


def test_game_scores_many_symbols_as_it_does_one() -> None:
    """Few assignments gather their candidates, many share one product."""
    task = make_task("signal_game")
    context = task.encode(task.training_batch(0, STREAMS)).context
    row, z = torch.cartesian_prod(torch.arange(8), torch.arange(6)).T
    z = z[:, None]
    every = task.cost(context, z, row)
    alone = [task.cost(context, z[i : i + 1], row[i : i + 1]) for i in range(len(z))]
    torch.testing.assert_close(every, torch.cat(alone))


def test_game_sender_is_its_networks_in_turn() -> None:
    task = make_task("signal_game")
    candidates, target = cast(Episodes, task.training_batch(0, STREAMS))
    image = candidates[torch.arange(8), target]
    layers = cast(dict[str, torch.nn.Module], dict(task.named_children()))
    hidden = layers["to_hidden"](layers["sender_embedding"](image)[:, :, None]).sigmoid()
    seen = layers["from_hidden"](hidden).squeeze(2).sigmoid()
    wanted = layers["to_scores"](seen) / 10
    found = task.encode((candidates, target)).scores[:, 0]
    torch.testing.assert_close(found, wanted)


def test_game_success_is_the_target_picked() -> None:
    task = make_task("signal_game")
    encoding = task.encode(task.training_batch(0, STREAMS))
    z = random_z(task, 8)
    embedded, target = encoding.context
    symbols = cast(torch.nn.Embedding, task.symbols)
    picked = torch.stack([(embedded[i] @ symbols.weight[z[i, 0]]).argmax() for i in range(8)])
    correct = task.correct(encoding, z)
    assert correct is not None
    assert torch.equal(correct, picked == target)
    assert task.chance == 1 / 4
    assert make_task("signal_game", entropy_weight=0.3).entropy_weight == 0.3


def test_game_evaluation_is_the_same_for_every_seed() -> None:
    task = make_task("signal_game")
    first, second = (
        [flatten(b) for b in task.evaluation_batches("test", 20, Streams(seed))] for seed in (0, 1)
    )
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(first[0][0], first[1][0])


def test_settings_that_leave_no_data_are_refused() -> None:
    with pytest.raises(DataError, match="lower the setting labelled"):
        make_task("ssvae", labelled=1000)
    for candidates, words in ((1001, "train .* or validation"), (400, "validation .* or raise v")):
        with pytest.raises(DataError, match=words):
            make_task("signal_game", candidates=candidates)
    with pytest.raises(DataError, match=r"test of digits has 500 .* candidates of signal_game$"):
        make_task("signal_game", candidates=501, validation=600)


@pytest.mark.parametrize(
    ("labels", "test_labels", "words"),
    [
        ([0, 1, 255], [0], "has training images of class 255 and none of class 2: number the"),
        ([3], [3], "has training images of class 3 and none of class 0: number the"),
        ([0], [0], "has training images of one class"),
        ([0, 1], [0, 2], "has test images of class 2 and none to train on"),
        ([0, 1, 2], [1], None),
    ],
)
def test_ssvae_takes_classes_that_it_can_learn(
    labels: list[int], test_labels: list[int], words: str | None
) -> None:
    """Others need no classes."""
    digits = load_dataset("digits")
    images = replace(
        digits,
        labels=torch.tensor(labels).repeat(1297)[:1297],
        test_labels=torch.tensor(test_labels).repeat(500)[:500],
    )
    wanted = nullcontext() if words is None else pytest.raises(DataError, match=words)
    with wanted:
        task = SemiSupervisedVAE(images, SemiSupervisedVAE.Settings(), 64)
        assert task.space == Categoricals(1, len(labels))
    BitVectorVAE(images, BitVectorVAE.Settings(), 64)


def test_streams_are_independent_of_what_was_drawn_before() -> None:
    streams = Streams(5)
    before = torch.rand(3, generator=streams.generator("a", 1))
    streams.generator("b", 1)
    assert torch.equal(before, torch.rand(3, generator=Streams(5).generator("a", 1)))
    for other in (Streams(6).generator("a", 1), streams.generator("b", 1), streams.generator("a")):
        assert not torch.equal(before, torch.rand(3, generator=other))


def test_shuffled_visits_everything_once_an_epoch() -> None:
    streams = Streams(0)
    epoch = torch.cat([streams.shuffled("order", 10, 5, step) for step in range(2)])
    assert sorted(epoch.tolist()) == list(range(10))
    following = torch.cat([streams.shuffled("order", 10, 5, step) for step in range(2, 4)])
    assert sorted(following.tolist()) == list(range(10))
    assert torch.equal(streams.shuffled("order", 10, 5, 1), epoch[5:])
    assert sorted(streams.shuffled("order", 4, 4, 0).tolist()) == list(range(4))
    assert epoch.tolist() != following.tolist()
    with pytest.raises(ValueError, match="a batch of 11"):
        streams.shuffled("order", 10, 11, 0)
