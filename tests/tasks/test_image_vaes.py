"""The binary and the categorical VAE: costs, priors, and how images are seen."""

import math
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli
from torch.nn import functional as F

from bench.cells.evaluation import EvaluationSettings, evaluate
from bench.cells.step import CountedCost
from estimators.registry import all_estimators
from tasks.base import Task
from tasks.examples import Likeliest
from tasks.streams import Streams
from tests.tasks.conftest import make_task

STREAMS = Streams(0)
NAMES = ["sbn", "categorical_vae"]


def linear(network: Task, place: int, inputs: Tensor) -> Tensor:
    layer = cast(torch.nn.Sequential, network)[place]
    return inputs @ layer.weight.T + layer.bias


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("prior", ["learned", "uniform"])
@pytest.mark.parametrize("layers", [0, 1])
def test_the_cost_of_bits_is_of_its_networks(centred: bool, prior: str, layers: int) -> None:
    task = make_task("sbn", centred=centred, prior=prior, layers=layers)
    x = cast(Tensor, task.training_batch(0, STREAMS))
    inputs = x - task.part("train").inputs.double().mean(dim=0) / 16 if centred else x
    z = task.space.every(x)[torch.tensor([0, 3, 5, 6, 9, 12, 14, 15])]
    hidden, out = [inputs], [2 * z - 1 if centred else z]
    for place in range(0, 2 * layers, 2):
        hidden.append(F.leaky_relu(linear(task.encoder, place, hidden[-1]), 0.3))
        out.append(F.leaky_relu(linear(task.decoder, place, out[-1]), 0.3))
    encoding = task.encode(x)
    wanted_scores = linear(task.encoder, 2 * layers, hidden[-1])
    torch.testing.assert_close(encoding.scores, wanted_scores, rtol=1e-6, atol=1e-6)
    logits = linear(task.decoder, 2 * layers, out[-1])
    wanted = -Bernoulli(logits=logits).log_prob(x).sum(dim=1)
    if prior == "learned":
        with torch.no_grad():
            task.prior.copy_(torch.tensor([-2.0, -0.3, 0.5, 3.0]))
        on = task.prior.sigmoid()
        wanted = wanted - (z * on.log() + (1 - z) * (1 - on).log()).sum(dim=1)
    torch.testing.assert_close(task.cost(encoding.context, z, torch.arange(8)), wanted)


@torch.no_grad()
def test_the_elbo_has_the_kl_to_the_learned_prior() -> None:
    """E_q[log p(x | z)] − KL(q ‖ p), all by enumeration; and the bound lies below log p(x)."""
    task = make_task("sbn", seen="threshold")
    task.prior.copy_(torch.tensor([-2.0, -0.3, 0.5, 3.0]))
    found = evaluate(
        task, all_estimators()["sfe"].make(task.space), CountedCost(task), EvaluationSettings(),
        "test", STREAMS, log_evidence_too=True,
    )  # fmt: skip
    x = (task.grey(task.part("test").inputs) > 0.5).double()
    every = task.space.every(x)
    log_likelihood = torch.stack(
        [Bernoulli(logits=task.decode(z[None])).log_prob(x).sum(dim=1) for z in every], dim=1
    )
    log_q = torch.stack(
        [Bernoulli(logits=task.encode(x).scores).log_prob(z).sum(dim=1) for z in every], dim=1
    )
    log_p = Bernoulli(logits=task.prior).log_prob(every).sum(dim=1)
    kl = (log_q.exp() * (log_q - log_p)).sum(dim=1)
    elbo = (log_q.exp() * log_likelihood).sum(dim=1) - kl
    assert found["elbo"] == pytest.approx(float(elbo.mean()))
    assert found["rate"] is None
    evidence = (log_likelihood + log_p).logsumexp(dim=1).mean()
    assert found["nll"] == pytest.approx(-float(evidence) / 64 / math.log(2))


@pytest.mark.parametrize("seen", ["drawn", "threshold"])
def test_the_output_starts_from_the_mean_of_the_pixels(seen: str) -> None:
    task = make_task("sbn", seen=seen)
    grey = task.part("train").inputs.double() / 16
    mean = (grey if seen == "drawn" else (grey > 0.5).double()).mean(dim=0)
    bias = task.decoder[-1].bias.detach().sigmoid()
    torch.testing.assert_close(bias, mean.clamp(0.001, 0.999), rtol=1e-5, atol=1e-6)
    assert float(bias.min()) == pytest.approx(0.001)  # where all are white
    other = make_task("sbn", bias="random").decoder[-1].bias
    assert other.abs().max() < 1 / 4


@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_drawn_anew_but_for_evaluation(name: str) -> None:
    task = make_task(name, seen="drawn")
    first, again = (cast(Tensor, task.training_batch(s, STREAMS)) for s in (0, 0))
    assert torch.equal(first, again)
    epoch = task.steps_per_epoch
    every = [
        torch.cat(
            [cast(Tensor, task.training_batch(s, STREAMS)) for s in range(start, start + epoch)]
        )
        for start in (0, epoch)
    ]
    grey = task.grey(task.part("train").inputs).mean()
    for drawn in every:
        assert set(drawn.unique().tolist()) == {0, 1}
        assert drawn.mean() == pytest.approx(float(grey), abs=0.01)
    assert every[0].sum() != every[1].sum()
    one, many = (torch.cat([*task.evaluation_batches("test", n, STREAMS)]) for n in (500, 7))
    assert torch.equal(one, many)


@pytest.mark.parametrize("seen", ["grey", "threshold", "drawn"])
@torch.no_grad()
def test_the_published_loss_of_categories_has_the_kl_in_it(seen: str) -> None:
    """Cross-entropy + KL to the uniform prior, by enumeration, is `loss` + V log C; with black and
    white pixels −ELBO."""
    task = make_task("categorical_vae", seen=seen)
    found = evaluate(
        task, all_estimators()["sfe"].make(task.space), CountedCost(task), EvaluationSettings(),
        "test", STREAMS,
    )  # fmt: skip
    (x,) = task.evaluation_batches("test", 500, STREAMS)
    q = task.encode(x).scores.softmax(dim=2)
    published = torch.zeros(500, dtype=torch.float64)
    for one in range(3):
        for two in range(3):
            share = q[:, 0, one] * q[:, 1, two]
            picked = F.one_hot(torch.tensor([one, two]), 3).double().flatten()
            hidden = F.relu(linear(task.decoder, 0, picked))
            p = linear(task.decoder, 2, hidden).sigmoid()
            cross_entropy = -(x * p.log() + (1 - x) * (1 - p).log()).sum(dim=1)
            published += share * (cross_entropy + (share * 9).log())
    assert found["loss"] + 2 * math.log(3) == pytest.approx(float(published.mean()))
    if seen == "grey":
        assert found["elbo"] is found["rate"] is None
        assert ((x > 0) & (x < 1)).double().mean() > 0.1
    else:
        assert found["elbo"] == pytest.approx(-float(published.mean()))
        assert set(x.unique().tolist()) == {0, 1}


def test_networks_are_mirrored() -> None:
    task = make_task("categorical_vae", variables=8, categories=4, hidden=(512, 256))
    widths = [tuple(p.shape) for p in task.parameters() if p.dim() == 2]
    down = [(512, 64), (256, 512), (32, 256)]
    assert widths == [*down, *[(b, a) for a, b in reversed(down)]]


@torch.no_grad()
def test_a_lower_half_is_predicted_from_the_upper_one_alone() -> None:
    """log Σ_z q(z | upper) p(lower | z) and E_q[log p(lower | z)], by enumeration."""
    task = make_task("sbn", predicted="lower-half", seen="threshold", layers=0)
    x = (task.grey(task.part("test").inputs) > 0.5).double()
    upper, lower = x[:, :32], x[:, 32:]
    encoding = task.encode(x)
    mean = (task.grey(task.part("train").inputs) > 0.5).double().mean(dim=0)
    scores = linear(task.encoder, 0, upper - mean[:32])
    torch.testing.assert_close(encoding.scores, scores, rtol=1e-6, atol=1e-6)
    wanted = mean[32:].clamp(0.001, 0.999)
    torch.testing.assert_close(task.decoder[-1].bias.sigmoid(), wanted, rtol=1e-5, atol=1e-6)
    every = task.space.every(x)
    log_likelihood = torch.stack(
        [Bernoulli(logits=linear(task.decoder, 0, 2 * z - 1)).log_prob(lower).sum(dim=1)
         for z in every], dim=1,
    )  # fmt: skip
    log_q = torch.stack([Bernoulli(logits=scores).log_prob(z).sum(dim=1) for z in every], dim=1)
    bound = float((log_q.exp() * log_likelihood).sum(dim=1).mean())
    bits = -float((log_q + log_likelihood).logsumexp(dim=1).mean()) / 32 / math.log(2)
    for settings in (
        EvaluationSettings(),
        EvaluationSettings(nll_max_summed=1),  # importance samples
        EvaluationSettings(nll_max_summed=1, nll_as="published"),
        EvaluationSettings(nll_as="bound"),
    ):
        found = evaluate(
            task, all_estimators()["sfe"].make(task.space), CountedCost(task), settings, "test",
            STREAMS, log_evidence_too=True,
        )  # fmt: skip
        assert found["elbo"] == -found["loss"] == pytest.approx(bound)
        assert found["rate"] is found["distortion"] is None
        summed = settings == EvaluationSettings()
        assert found["nll"] == pytest.approx(bits, rel=1e-9 if summed else 1e-3)
    likeliest = Likeliest(every[:8, None], torch.ones(8, 1), torch.ones(8))
    (example,) = task.examples(lambda scores, count: likeliest, STREAMS).values()
    assert example.kind == "pairs"
    original, whole = example.arrays["original"], example.arrays["reconstruction"]
    assert (original[:, :4] == whole[:, :4]).all()
    assert (original[:, 4:] != whole[:, 4:]).any()
