"""A q that is no list of assignments is evaluated on its own samples, under its own prior."""

import itertools
import math
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor

from bench.cells.evaluation import EvaluationSettings, evaluate, log_evidence
from bench.cells.examples import likeliest
from bench.cells.step import CountedCost
from estimators import make
from estimators.base import Estimator
from estimators.distributions.mixed import MixedDistribution
from estimators.mappings import sparsemax
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals
from estimators.spaces.distribution import Distribution
from tasks.base import Context, Encoding, Task
from tasks.streams import Streams

BITS, ROWS = 3, 40
FACES = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
"""Probability of 0, of 1, and of between, where z is uniform."""


class Atoms(Distribution):
    """Each bit is 0, 1 or uniform between, whatever the scores are."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__(scores, BITS * math.log(3))

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        rows = len(self.scores)
        face = sampler.categorical(FACES.expand(rows, BITS, 3), samples)
        between = sampler.logistic(self.scores, samples).sigmoid()
        return torch.where(face == 2, between, face.double())

    def log_prob(self, z: Tensor) -> Tensor:
        face = torch.where(z == 0, 0, torch.where(z == 1, 1, 2))
        return FACES[face].log().sum(dim=2)

    def entropy(self) -> Tensor:
        return self.scores.new_full(
            (len(self.scores),), BITS * float(torch.special.entr(FACES).sum())
        )

    def mode(self) -> Tensor:
        return torch.zeros_like(self.scores)


class Model:
    """f(z) = Σ (z − ½)²: 1/4 at an atom, 1/12 on average between."""

    name, space = "test", Bits(BITS)
    entropy_weight, is_likelihood, prior_in_cost, prior_is_q = 1.0, True, False, False
    activation_size, pixels = 1, 10

    def evaluation_batches(self, split: str, size: int, streams: Streams) -> list[int]:
        return [0]

    def encode(self, batch: object) -> Encoding:
        scores = torch.zeros(ROWS, BITS, dtype=torch.float64)
        return Encoding(scores, scores, ())

    def cost(self, context: Context, z: Tensor, row: Tensor) -> Tensor:
        return (z - 0.5).square().sum(dim=1)

    def correct(self, encoding: Encoding, z: Tensor) -> None:
        return None

    def exact_cost(self, context: Context, q: Distribution) -> None:
        return None

    def truth(self, encoding: Encoding) -> None:
        return None


def evaluated(task: Task, settings: EvaluationSettings) -> dict[str, float | None]:
    estimator = cast(Estimator, SimpleNamespace(distribution=Atoms, own_model=True))
    return evaluate(task, estimator, CountedCost(task), settings, "test", Streams(0), True)


def test_its_elbo_is_against_the_prior_of_largest_entropy() -> None:
    found = evaluated(cast(Task, Model()), EvaluationSettings(samples=2000, nll_samples=4000))
    cost = BITS * (0.7 / 4 + 0.3 / 12)
    entropy = BITS * float(torch.special.entr(FACES).sum())
    assert found["entropy"] == pytest.approx(entropy)
    assert found["distortion"] == pytest.approx(cost, abs=0.01)
    assert found["rate"] == pytest.approx(BITS * math.log(3) - entropy)
    assert found["elbo"] == pytest.approx(-cost - BITS * math.log(3) + entropy, abs=0.01)
    assert found["support_mean"] is None
    assert found["support_max"] is None


def test_its_likelihood_is_over_points_and_all_between_them() -> None:
    """p(x) = Π (2 e^{−1/4} + ∫ e^{−(z−½)²}) / 3 of the model above."""
    task = cast(Task, Model())
    between = math.sqrt(math.pi) * math.erf(0.5)
    wanted = BITS * math.log((2 * math.exp(-0.25) + between) / 3)
    q = Atoms(torch.zeros(ROWS, BITS, dtype=torch.float64))
    sampler, settings = Sampler(torch.Generator().manual_seed(0)), EvaluationSettings()
    found, effective = log_evidence(CountedCost(task), (), q, sampler, settings)
    assert float(found.mean()) == pytest.approx(wanted, abs=0.01)
    assert (effective > 0.5 * settings.nll_samples).all()


def test_a_prior_in_the_cost_is_no_other() -> None:
    task = Model()
    task.prior_in_cost = True
    found = evaluated(cast(Task, task), EvaluationSettings(samples=2000))
    assert found["elbo"] == pytest.approx(found["entropy"] - found["expected_cost"])  # type: ignore[operator]
    assert found["rate"] is None
    assert found["distortion"] is None


def test_its_mode_alone_is_shown() -> None:
    q = Atoms(torch.zeros(2, BITS, dtype=torch.float64))
    found = likeliest(q, Bits(BITS), 8)
    assert found.z.shape == (2, 1, BITS)
    torch.testing.assert_close(found.probability, torch.full((2, 1), 0.5**3).double())
    assert found.support.isinf().all()


class Bright(Model):
    """f(z) = Σ i z_i², of scores that differ."""

    def encode(self, batch: object) -> Encoding:
        scores = torch.linspace(-2, 2, ROWS * BITS, dtype=torch.float64).view(ROWS, BITS)
        return Encoding(scores, scores, ())

    def cost(self, context: Context, z: Tensor, row: Tensor) -> Tensor:
        return z.square() @ torch.arange(1.0, BITS + 1).to(z)


@pytest.mark.parametrize("most", [2**BITS, 1])
def test_rounded_it_is_evaluated_as_what_is_discrete(most: int) -> None:
    """The law of a hard concrete bit's nearest value is that of a Bernoulli bit of its score."""
    task, settings = cast(Task, Bright()), EvaluationSettings(max_summed=most, samples=4000)

    def found(name: str) -> dict[str, float | None]:
        estimator = make(name, Bits(BITS))
        return evaluate(task, estimator, CountedCost(task), settings, "test", Streams(0), True)

    mixed, hard = found("hard-concrete"), found("sfe")
    for name in ("elbo", "loss", "nll"):
        assert mixed[f"rounded_{name}"] == pytest.approx(
            hard[name], abs=0.02 if most == 1 else 1e-9
        )
        assert abs(mixed[name] - hard[name]) > 0.01  # type: ignore[operator]
        assert hard.get(f"rounded_{name}") is None
    q = make("hard-concrete", Bits(BITS)).distribution(Bright().encode(0).scores)
    assert isinstance(q, MixedDistribution)
    assert mixed["on_vertex"] == pytest.approx(float(q.on_vertex().mean()))
    assert mixed["on_edge"] == pytest.approx(1 - mixed["on_vertex"], abs=0.01)  # type: ignore[operator]
    assert mixed["face_vertices"] == pytest.approx(2 - mixed["on_vertex"], abs=0.01)  # type: ignore[operator]
    for name in ("on_vertex", "on_edge", "face_vertices"):
        assert hard[name] is None


CATEGORIES = 10
SIMPLEX = ("gaussian-sparsemax", "logistic-normal", "mixed-dirichlet")


class Ten(Bright):
    """One of ten values: f(z) = Σ i z_i² / 10."""

    space = Categoricals(1, CATEGORIES)

    def encode(self, batch: object) -> Encoding:
        scores = torch.linspace(-2, 2, ROWS * CATEGORIES, dtype=torch.float64)
        scores = scores.view(ROWS, 1, CATEGORIES).sin()
        return Encoding(scores, scores.flatten(1), ())

    def cost(self, context: Context, z: Tensor, row: Tensor) -> Tensor:
        points = self.space.point(z, torch.float64)
        return points.square().flatten(1) @ torch.arange(0.1, 1.05, 0.1).to(points)


@pytest.mark.parametrize("name", SIMPLEX)
def test_a_variable_of_ten_categories_has_faces_of_up_to_ten_vertices(name: str) -> None:
    task, settings = Ten(), EvaluationSettings(samples=2000, nll_samples=2000)
    estimator = make(name, task.space)
    scores = task.encode(0).scores
    found = evaluate(
        cast(Task, task),
        estimator,
        CountedCost(cast(Task, task)),
        settings,
        "test",
        Streams(0),
        True,
    )
    q = estimator.distribution(scores)
    assert isinstance(q, MixedDistribution)
    on_vertex, on_edge, mean = (found[n] for n in ("on_vertex", "on_edge", "face_vertices"))
    assert on_vertex == pytest.approx(float(q.on_vertex().mean()))
    if name == "logistic-normal":
        assert (on_vertex, on_edge, mean) == (0, 0, CATEGORIES)
    elif name == "gaussian-sparsemax":
        z = scores + estimator.settings.scale * torch.randn(2000, *scores.shape, dtype=scores.dtype)  # type: ignore[operator]
        sizes = (sparsemax(z) > 0).sum(dim=-1).double()
        assert on_edge == pytest.approx(float((sizes == 2).double().mean()), abs=0.01)
        assert mean == pytest.approx(float(sizes.mean()), abs=0.01)
    else:
        sizes = sum(combinations(scores[:, 0].exp(), n) for n in range(1, CATEGORIES + 1))
        edges = combinations(scores[:, 0].exp(), 2) / sizes
        assert on_edge == pytest.approx(float(edges.mean()), abs=0.01)
        assert mean == pytest.approx(float(q.faces.marginals.sum(dim=2).mean()), abs=0.02)  # type: ignore[attr-defined]
    assert found["rounded_elbo"] is not None
    assert -task.pixels * found["nll"] * math.log(2) > found["elbo"]  # type: ignore[operator]


def combinations(weights: Tensor, size: int) -> Tensor:
    """Σ of products of so many different weights (B, C), (B,)."""
    return sum(
        weights[:, list(some)].prod(dim=1)
        for some in itertools.combinations(range(CATEGORIES), size)
    )


def test_what_is_shown_of_it_is_rounded() -> None:
    scores = torch.tensor([[0.5, -2.0, 1.0]], dtype=torch.float64)
    q, plain = (make(n, Bits(BITS)).distribution(scores) for n in ("hard-concrete", "sfe"))
    for wanted, part in zip(
        likeliest(plain, Bits(BITS), 8), likeliest(q, Bits(BITS), 8), strict=True
    ):
        torch.testing.assert_close(part, wanted)
