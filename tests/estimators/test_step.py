"""The step: objectives, the estimator's own loss, and the face for other people's models."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from estimators import Bits, Categoricals, expected_cost, make, step
from estimators.base import Estimate, Estimator, Evaluated, Proposal
from estimators.sampled.multi_sample import VIMCO
from estimators.sampled.other_assignments import LeaveOneOut
from estimators.sampled.score_function import NVIL
from estimators.sampler import Sampler
from estimators.shapes import ShapeError
from estimators.spaces import Space
from estimators.spaces.distribution import Distribution
from estimators.step import take_step
from tests.estimators.contract import (
    BITS,
    FEATURES,
    Problem,
    check_expectation,
    expectation,
    network,
    run,
)
from tests.estimators.test_contract import CASES, as_set


@pytest.mark.parametrize("share", [0, 2])
def test_q_has_its_part_of_costs_that_weigh_unequally(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the weights of a bound on several samples; contract tests see any other."""
    problem, estimator = Problem.random(BITS), VIMCO.make(BITS, samples=2).double()
    check_expectation(estimator, problem, network)
    real = step._with_log_q

    def other(*given: Any) -> tuple[Evaluated, Tensor]:
        evaluated, log_q = real(*given)
        return evaluated, log_q.detach() + share * (log_q - log_q.detach())

    monkeypatch.setattr(step, "_with_log_q", other)
    with pytest.raises(AssertionError):
        check_expectation(estimator, problem, network)


class Leaking(NVIL):
    """Its own loss is of the scores as well."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        right = super().combine(q, proposal, evaluated)
        assert right.own_loss is not None
        return replace(right, own_loss=right.own_loss * (1 + q.scores.square().sum()))


def check_own_loss(estimator: Estimator, at_once: int | None) -> None:
    """The encoder's gradient is what it is without an own loss, and the estimator has one."""
    problem = Problem.random(BITS)
    scores = problem.scores.expand(4, -1).clone().requires_grad_()
    features = torch.ones(4, FEATURES, dtype=torch.float64)

    def gradients(of: Estimator) -> tuple[Tensor | None, list[Tensor | None]]:
        scores.grad = None
        taken = take_step(
            of, scores, features, lambda context, z, row: z.sum(dim=1), (),
            Sampler(torch.Generator().manual_seed(0)), entropy_weight=1.0, scale=0.25,
            at_once=at_once,
        )  # fmt: skip
        taken.loss.backward()
        return scores.grad, [parameter.grad for parameter in of.parameters()]

    encoder, own = gradients(estimator)

    class Without(type(estimator)):  # type: ignore[misc]
        def combine(self, *given: object) -> Estimate:
            return replace(super().combine(*given), own_loss=None)

    bare = Without(BITS, estimator.settings, FEATURES).double()
    bare.load_state_dict(estimator.state_dict())
    torch.testing.assert_close(encoder, gradients(bare)[0])
    assert all(gradient is not None for gradient in own)


class TwiceTheEntropy(NVIL):
    """Something else stands for the entropy, which is scaled with the rest."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        return replace(super().combine(q, proposal, evaluated), entropy=2 * q.entropy())


def test_what_stands_for_the_entropy_is_in_gradient_and_objective() -> None:
    scores = Problem.random(BITS).scores.expand(4, -1)
    found = []
    for kind, weight in ((NVIL, 0.6), (TwiceTheEntropy, 0.3)):
        torch.manual_seed(0)
        estimator, leaf = kind.make(BITS, features=1).double(), scores.clone().requires_grad_()
        estimator.variance.update(torch.tensor(9.0).double())
        taken = take_step(
            estimator, leaf, scores[:, :1], lambda context, z, row: z.sum(dim=1), (),
            Sampler(torch.Generator().manual_seed(0)), entropy_weight=weight, scale=0.25,
        )  # fmt: skip
        taken.loss.backward()
        assert leaf.grad is not None
        found.append((leaf.grad, taken.objective))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


class Twofold(LeaveOneOut):
    """Gives an entropy, whatever the costs have in them."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        return replace(super().combine(q, proposal, evaluated), entropy=q.entropy())


def test_an_entropy_beside_log_q_in_the_costs_is_refused() -> None:
    scores = torch.zeros(3, 2, requires_grad=True)
    expected_cost(Twofold.make(Bits(2)), scores, lambda z, row: z.sum(dim=1))
    with pytest.raises(ShapeError, match="gives an entropy, and asks for log q in the costs"):
        expected_cost(Twofold.make(Bits(2), entropy="sampled"), scores, lambda z, row: z.sum(dim=1))


@pytest.mark.parametrize("at_once", [None, 8])
@pytest.mark.parametrize("kind", [NVIL, Leaking])
def test_an_own_loss_reaches_its_own_parameters_alone(
    kind: type[NVIL], at_once: int | None
) -> None:
    check_own_loss(kind.make(BITS, features=FEATURES).double(), at_once)


@pytest.mark.parametrize("at_once", [None, 8])
@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("_confined", lambda own_loss, estimator, now: own_loss),
        ("_leads_to", lambda value, leaves: True),
    ],
)
def test_an_own_loss_that_reaches_the_encoder_is_caught(
    name: str, planted: object, at_once: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, name, planted)
    with pytest.raises(AssertionError):
        check_own_loss(Leaking.make(BITS, features=FEATURES).double(), at_once)


@pytest.mark.parametrize(("estimator", "space", "settings"), [*filter(as_set, CASES)])
def test_the_face_has_the_gradient_of_the_harness(
    estimator: type[Estimator], space: Space, settings: dict[str, object]
) -> None:
    """Value and gradients, for all that the same noise gives: of scores, decoder and own."""
    problem = Problem.random(space)
    generator = torch.Generator()
    found = []
    for at_once in (None, 10**9, 3):
        torch.manual_seed(0)
        instance = estimator.make(space, features=FEATURES, **settings).double()
        scores = problem.scores.expand(5, *space.scores_shape).clone().requires_grad_()
        theta = problem.theta.clone().requires_grad_()
        features = torch.ones(5, FEATURES, dtype=torch.float64)
        generator.manual_seed(1)

        def cost(z: Tensor, row: Tensor, theta: Tensor = theta) -> Tensor:
            return network(problem.point(z), theta.expand(len(z), -1))

        if at_once is None:
            loss = expected_cost(instance, scores, cost, features=features, generator=generator)
            value = loss.detach()
        else:
            taken = take_step(
                instance, scores, features, lambda context, z, row: cost(z, row), (),
                Sampler(generator), entropy_weight=1.0, scale=1 / 5, at_once=at_once,
            )  # fmt: skip
            loss, value = taken.loss, taken.objective
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        parameters = [scores, theta, *instance.parameters()]
        gradients = (torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
        found.append([value, *gradients])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(two, one)


def test_the_state_moves_on_in_training_alone() -> None:
    estimator = make("sfe-ma", Bits(2))
    scores = torch.zeros(3, 2, requires_grad=True)

    def cost(z: Tensor, row: Tensor) -> Tensor:
        return 5 + z.sum(dim=1)

    before = expected_cost(estimator.eval(), scores, cost)
    assert before.requires_grad
    with torch.no_grad():
        assert not expected_cost(estimator.train(), scores, cost).requires_grad
    assert estimator.average.value == 0
    expected_cost(estimator, scores, cost)
    assert estimator.average.value > 5
    assert "average.total" in estimator.state_dict()


def test_a_users_gradients_are_untouched_before_the_backward_pass() -> None:
    """Most training loops clear the gradients between the loss and its backward pass."""
    model = nn.Linear(4, 1)
    for name in ("gumbel", "rloo", "nvil", "dense"):
        estimator = make(name, Bits(4), features=2)
        scores = torch.zeros(3, 4, requires_grad=True)
        loss = expected_cost(
            estimator, scores, lambda z, row: model(z).squeeze(1), features=torch.ones(3, 2)
        )
        assert all(p.grad is None for p in [*model.parameters(), *estimator.parameters()])
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None for p in [*model.parameters(), *estimator.parameters()])
        model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", ["sfe-ma", "gumbel", "daps", "rebar", "spigot"])
def test_a_batch_of_none_costs_nothing_and_teaches_nothing(name: str) -> None:
    estimator, scores = make(name, Bits(2)), torch.zeros(0, 2, requires_grad=True)
    before = {key: value.clone() for key, value in estimator.state_dict().items()}
    loss = expected_cost(estimator, scores, lambda z, row: z.sum(dim=1))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == 0
    assert scores.grad is not None
    assert all(torch.equal(value, before[key]) for key, value in estimator.state_dict().items())


def test_the_step_of_aimle_may_be_of_less_precision_than_scores() -> None:
    estimator = make("aimle", Bits(2))
    scores = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    expected_cost(estimator, scores, lambda z, row: z.sum(dim=1))
    assert estimator.beta > 0


def test_mistakes_are_told_in_a_line() -> None:
    rloo = make("rloo", Bits(2))
    scores = torch.zeros(3, 2, requires_grad=True)
    with pytest.raises(
        ShapeError, match=r"the encoder gives scores of shape \(3, 4\), not \(3, 2\)"
    ):
        expected_cost(rloo, torch.zeros(3, 4), lambda z, row: z.sum(dim=1))
    with pytest.raises(ShapeError, match=r"the cost gives costs of shape \(12, 2\), not \(12,\)"):
        expected_cost(rloo, scores, lambda z, row: z)
    with pytest.raises(ValueError, match="nvil has a network of the inputs: give features"):
        expected_cost(make("nvil", Bits(2), features=3), scores, lambda z, row: z.sum(dim=1))
    for name, settings, said in (
        ("rlo", {}, "no estimator is named 'rlo': did you mean 'rloo'?"),
        ("rloo", {"samples": 1}, "rloo: samples = 1: input should be greater than or equal to 2"),
        ("rloo", {"sample": 3}, "rloo: there is no setting sample; there are entropy, samples"),
        (
            "identity",
            {"noise": "none", "samples": 2},
            "identity: without noise all samples are alike: take one",
        ),
        ("nvil", {}, "nvil: its baseline is a network of the inputs: give features, their number"),
        ("topk-sparsemax", {}, "topk-sparsemax has k = 10, above all 4 assignments"),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            make(name, Bits(2), **settings)  # type: ignore[arg-type]
        assert str(error.value) == said


@pytest.mark.parametrize(
    "name",
    ["sfe", "rloo", "sparsemax", "gumbel", "sum-and-sample", "st", "reinmax", "gapped-st", "daps"],
)
def test_two_categories_are_a_bit(name: str) -> None:
    """The same expected gradient for the log-odds, through enumeration or from the same noise."""
    bits, pairs = Problem.random(Bits(3), 1), Problem.random(Categoricals(3, 2), 2)
    half = bits.scores / 2
    theta = torch.stack([bits.theta, torch.zeros(3)], dim=1).flatten()
    pairs = replace(pairs, scores=torch.stack([half, -half], dim=1), theta=theta)
    if name == "gumbel":
        noise = Sampler(torch.Generator().manual_seed(0)).logistic(torch.zeros(1, 3).double(), 1)

        class Fixed(Sampler):
            def logistic(self, like: Tensor, samples: int) -> Tensor:
                return noise.expand(len(like), -1, -1)

            def gumbel(self, like: Tensor, samples: int) -> Tensor:
                both = torch.stack([noise, torch.zeros_like(noise)], dim=3)
                return both.expand(len(like), -1, -1, -1)

        found = [
            run(make(name, p.space).double(), p, sum_of_sines, Fixed(), 1) for p in (bits, pairs)
        ]
        one, two = found[0].scores[0], found[1].scores[0]
    else:
        found = [expectation(make(name, p.space).double(), p, sum_of_sines) for p in (bits, pairs)]
        one, two = found[0].scores, found[1].scores
    torch.testing.assert_close(found[0].value, found[1].value)
    torch.testing.assert_close(one, two[:, 0])
    torch.testing.assert_close(one, -two[:, 1])


def sum_of_sines(point: Tensor, theta: Tensor) -> Tensor:
    """Of a bit, or of a pair of which the second part has θ = 0."""
    return (point * theta).sum(dim=1).sin()
