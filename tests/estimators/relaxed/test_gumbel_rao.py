"""Straight-through with noise: its temperature, and its mean over the noise given the vertex."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from estimators.pathwise import straight_through
from estimators.relaxed.gumbel import GumbelRao, StraightThroughGumbel
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals, Space
from estimators.spaces.base import Factorised
from estimators.spaces.distribution import Distribution
from tests.estimators.contract import BITS, CATEGORICAL, SEVERAL, Problem, network, run
from tests.estimators.relaxed.test_relaxations import BIT, NODES, Quadrature

DRAWS = 100_000
LIMIT = stats.norm.isf(1e-4 / 2)
SPACES = [CATEGORICAL, SEVERAL, BITS]


def gradients(kind: type[StraightThroughGumbel], space: Space, **settings: float) -> Tensor:
    """Of the scores, one for each draw."""
    problem = Problem.random(space, seed=6)
    at = {"initial": 0.7} | settings
    sampler = Sampler(torch.Generator().manual_seed(5))
    return run(kind.make(space, **at), problem, network, sampler, DRAWS).scores.flatten(1)


def check_mean(kind: type[GumbelRao], space: Space, **settings: float) -> None:
    """That of `st-gumbel` at the same temperature."""
    one, other = (
        gradients(kind, space, draws=3, **settings),
        gradients(StraightThroughGumbel, space, **settings),
    )
    noise = ((one.var(dim=0) + other.var(dim=0)) / DRAWS).sqrt()
    assert ((one.mean(dim=0) - other.mean(dim=0)).abs() < LIMIT * noise + 1e-12).all()


@pytest.mark.parametrize(("space", "samples"), [*zip(SPACES, (1, 1, 1), strict=True), (BITS, 2)])
def test_its_mean_is_that_of_st_gumbel(space: Space, samples: int) -> None:
    check_mean(GumbelRao, space, samples=samples)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_more_draws_of_the_noise_have_less_variance(space: Space) -> None:
    """Of a single one it is that of `st-gumbel`."""
    sizes = [
        gradients(kind, space, **settings).var(dim=0).sum()
        for kind, settings in (
            (StraightThroughGumbel, {}),
            (GumbelRao, {"draws": 1}),
            (GumbelRao, {"draws": 2}),
            (GumbelRao, {"draws": 10}),
        )
    ]
    torch.testing.assert_close(sizes[1], sizes[0], rtol=0.05, atol=0)
    assert sizes[2] < 0.97 * sizes[1]
    assert sizes[3] < 0.97 * sizes[2]


class OfBothVertices(Quadrature):
    """Deals one vertex to all rows."""

    def __init__(self, on: bool) -> None:
        super().__init__()
        self.on = on

    def bernoulli(self, probabilities: Tensor, samples: int) -> Tensor:
        return torch.full_like(probabilities, float(self.on))[:, None]


def test_its_mean_is_that_of_st_gumbel_by_quadrature() -> None:
    problem = Problem.random(BIT, seed=4)
    wanted = run(
        StraightThroughGumbel.make(BIT, initial=0.7), problem, network, Quadrature(), NODES
    ).scores.mean()
    p = float(problem.scores.sigmoid())
    found = sum(
        weight
        * run(
            GumbelRao.make(BIT, initial=0.7, draws=1), problem, network, OfBothVertices(on), NODES
        ).scores.mean()
        for on, weight in ((True, p), (False, 1 - p))
    )
    torch.testing.assert_close(torch.as_tensor(found), wanted, rtol=1e-5, atol=1e-6)


class ThroughTheNoise(GumbelRao):
    """The noise is differentiated, as a function of the scores given the vertex."""

    def relax(self, q: Distribution, sampler: Sampler) -> Tensor:
        assert isinstance(self.space, Factorised)
        own = self.settings
        vertex = self.space.point(q.sample(sampler, own.samples), q.scores.dtype)
        noise = self.space.noise(q.scores, sampler, own.samples * own.draws)
        repeated = vertex.repeat_interleave(own.draws, dim=1)
        given = self.space.perturbed_given(q.scores[:, None], repeated, noise)
        soft = self.space.soft(given / self.temperature)
        return straight_through(vertex, soft.unflatten(1, (own.samples, own.draws)).mean(dim=2))


class ForgetsTheTemperature(GumbelRao):
    """1 / τ is missing."""

    def relax(self, q: Distribution, sampler: Sampler) -> Tensor:
        right = super().relax(q, sampler)
        return straight_through(right.detach(), right * self.temperature)


class IgnoresTheVertex(GumbelRao):
    """The noise is drawn without the vertex."""

    def relax(self, q: Distribution, sampler: Sampler) -> Tensor:
        vertex = self.space.point(q.sample(sampler, 1), q.scores.dtype)
        return straight_through(vertex, super(StraightThroughGumbel, self).relax(q, sampler))


@pytest.mark.parametrize("space", [CATEGORICAL, BITS], ids=repr)
@pytest.mark.parametrize("mutant", [ThroughTheNoise, ForgetsTheTemperature, IgnoresTheVertex])
def test_another_mean_is_found(mutant: type[GumbelRao], space: Space) -> None:
    with pytest.raises(AssertionError):
        check_mean(mutant, space)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("space", [BITS, SEVERAL], ids=repr)
def test_extreme_scores_give_numbers(space: Space, dtype: torch.dtype) -> None:
    for scale in (30.0, 1e4):
        scores = torch.randn(50, *space.scores_shape, dtype=dtype).sign() * scale
        q = space.plain(scores.requires_grad_())
        z = GumbelRao.make(space, initial=0.1, minimum=0.1).relax(q, Sampler())
        (found,) = torch.autograd.grad(z.square().sum(), scores)
        assert found.isfinite().all()


@pytest.mark.parametrize("kind", [StraightThroughGumbel, GumbelRao])
@pytest.mark.parametrize("space", [Bits(3), Categoricals(2, 3)], ids=repr)
def test_the_temperature_of_the_gradient_alone_counts(
    kind: type[StraightThroughGumbel], space: Space
) -> None:
    """Its own, as that of the schedule, to the bit; and the vertices are the same at any."""
    problem = Problem.random(space)
    found = [
        run(
            kind.make(space, **settings), problem, network,
            Sampler(torch.Generator().manual_seed(0)), 40,
        )
        for settings in (
            {},
            {"backward_temperature": 1.0},
            {"backward_temperature": 1.0, "initial": 3.0, "minimum": 2.0},
            {"backward_temperature": 0.6},
        )
    ]  # fmt: skip
    for other in found[1:]:
        assert torch.equal(other.value, found[0].value)
        assert torch.equal(other.theta, found[0].theta)
    assert torch.equal(found[1].scores, found[0].scores)
    assert torch.equal(found[2].scores, found[0].scores)
    assert (found[3].scores - found[0].scores).abs().max() > 1e-3


def test_its_own_temperature_does_not_fall() -> None:
    falling, constant = (
        StraightThroughGumbel.make(BIT, initial=0.8, rate=1e-3, every=1, **own)
        for own in ({}, {"backward_temperature": 0.8})
    )
    assert falling.temperature == constant.temperature == 0.8
    for estimator in (falling, constant):
        estimator.step.fill_(100)
    assert falling.temperature == pytest.approx(0.8 * math.exp(-0.1))
    assert constant.temperature == 0.8
