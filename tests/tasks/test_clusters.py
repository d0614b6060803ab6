"""Clusters: what is generated, the decoder, and the V-measure of what is found."""

from typing import cast

import numpy as np
import pytest
import torch
from sklearn.metrics import homogeneity_completeness_v_measure
from torch.nn import functional as F

from tasks.clusters import NOISE, Clusters, generated
from tasks.planted import PlantedBatch
from tasks.streams import Streams
from tests.tasks.conftest import SMALL, make_task

STREAMS = Streams(0)


def test_each_cluster_has_a_centre_and_a_linear_classifier() -> None:
    settings = Clusters.Settings(clusters=3, size=4, train=4000, validation=500, test=600)
    data = generated(settings)
    assert (len(data.inputs), len(data.test_inputs)) == (4500, 600)
    x = torch.cat([data.inputs, data.test_inputs]).double()
    y = torch.cat([data.labels, data.test_labels])
    z = torch.cat([data.structures, data.test_structures])[:, 0]
    assert sorted(z.unique().tolist()) == [0, 1, 2]
    for cluster in range(3):
        own, label = x[z == cluster], y[z == cluster]
        centred = own - own.mean(dim=0)
        count = len(own)
        assert abs(count - 1700) < 5 * (5100 * 2 / 9) ** 0.5
        assert (centred.std(dim=0) - NOISE).abs().max() < 5 * NOISE / (2 * count) ** 0.5
        assert abs(label.double().mean() - 0.5) < 5 * 0.5 / count**0.5
        # Of an isotropic x, the mean of signed rows is along the classifier: it separates them.
        direction = centred.T @ (2 * label - 1).double()
        assert (((centred @ direction) > 0) == (label > 0)).double().mean() > 0.97


def test_the_data_is_that_of_its_seed() -> None:
    same = [generated.__wrapped__(Clusters.Settings()).digest for _ in range(2)]
    assert same[0] == same[1] != generated(Clusters.Settings(data_seed=43)).digest


def test_batches_keep_rows_answers_and_clusters_together() -> None:
    task = make_task("clusters")
    data = generated(Clusters.Settings(**SMALL["clusters"]))
    known = {
        tuple(x): (y, z)
        for x, y, z in zip(
            data.inputs.tolist(), data.labels.tolist(), data.structures[:, 0].tolist(), strict=True
        )
    }
    for batch in (
        task.training_batch(3, STREAMS),
        *task.evaluation_batches("train", 50, STREAMS),
        *task.evaluation_batches("validation", 50, STREAMS),
    ):
        inputs, answer, truth = cast(PlantedBatch, batch)
        for x, y, z in zip(inputs.tolist(), answer.tolist(), truth[:, 0].tolist(), strict=True):
            assert known[tuple(x)] == (y, z)


def test_the_cost_is_bilinear_in_z_and_x() -> None:
    task = make_task("clusters")
    x, answer, _ = cast(PlantedBatch, task.training_batch(0, STREAMS))
    context = task.encode(task.training_batch(0, STREAMS)).context
    z = torch.rand(8, 1, 4, dtype=torch.float64)
    layer = cast(torch.nn.Linear, task.classifiers)
    log_odds = torch.einsum("nk,kp,np->n", z[:, 0], layer.weight, x.double()) + z[:, 0] @ layer.bias
    p = log_odds.sigmoid()
    wanted = -torch.where(answer > 0, p, 1 - p).log()
    torch.testing.assert_close(task.cost(context, z, torch.arange(8)), wanted)
    right = task.correct(task.encode(task.training_batch(0, STREAMS)), z.argmax(dim=2))
    hard = F.one_hot(z.argmax(dim=2), 4).double()
    costs = task.cost(context, hard, torch.arange(8))
    assert right is not None
    assert torch.equal(right, costs < np.log(2))


def test_agreement_is_the_v_measure() -> None:
    task = make_task("clusters")
    generator = torch.Generator().manual_seed(0)
    truth, other = torch.randint(4, (2, 300, 1), generator=generator)
    assert task.agreement((truth + 1) % 4, truth) == pytest.approx(1)
    merged = truth.clamp(max=2)
    for z in (merged, other):
        found = homogeneity_completeness_v_measure(truth[:, 0].numpy(), z[:, 0].numpy())
        assert task.agreement(z, truth) == pytest.approx(found[2])
    assert task.agreement(merged, truth) < 0.9
    assert task.agreement(other, truth) < 0.1
    padded = truth.where(torch.arange(300)[:, None] < 200, -1)
    assert task.agreement(merged, padded) == pytest.approx(
        task.agreement(merged[:200], truth[:200])
    )
