"""Chains: sequences of T states out of S each, with scores of states and of transitions.

    q(z) ∝ exp( Σ_t u_t(z_t) + Σ_t x_t(z_t, z_{t+1}) )

This is a linear-chain conditional random field (Lafferty et al. 2001), and, read from its first
place on, a Markov chain. With a_t(s) the log of the sum over all that may follow s at place t,

    a_t(s) = log Σ_s' exp( x_t(s, s') + u_{t+1}(s') + a_{t+1}(s') )
    log q(z_{t+1} = s' | z_t = s) = x_t(s, s') + u_{t+1}(s') + a_{t+1}(s') − a_t(s)

samples, marginals and the entropy follow from the first place to the last (forward-backward,
with its directions exchanged). The best chain of scores plus Gumbel noise has another law, unless T
is 1.
"""

import math
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from estimators.mappings import (
    ChainParts,
    below_the_best,
    best_chains,
    chain_points,
    join_chain,
    sparsemap,
    split_chain,
    sums_along,
    topk_sparsemax_chains,
)
from estimators.sampler import Sampler
from estimators.spaces.base import Ranked
from estimators.spaces.forbidden import FORBIDDEN, forbidden
from estimators.spaces.structured import MOST_LISTED, Structured


class Chains(Ranked):
    """{1, …, S}^T, whose points have an entry for each state at each place, and for each transition
    on each link: T S + (T − 1) S² of them, in one vector.

    Args:
        length: T.
        states: S.
    """

    name = "chains"

    def __init__(self, length: int, states: int) -> None:
        super().__init__()
        if length < 1 or states < 1:
            raise ValueError(f"Chains({length}, {states}): give one place and one state at least")
        self.length, self.states = length, states
        self.scores_shape = self.point_shape = ((length + (length - 1) * states) * states,)
        self.z_shape = (length,)
        self.count, self.log_assignments = states**length, length * math.log(states)
        self.dimension = length * (states - 1) + (length - 1) * (states - 1) ** 2
        self.noise_samples_q = length == 1 or states == 1

    def __repr__(self) -> str:
        return f"Chains({self.length}, {self.states})"

    @property
    def size(self) -> int:
        return self.length * self.states

    def split(self, vectors: Float[Tensor, "*batch P"]) -> ChainParts:
        """The entries of states (*batch, T, S) and of transitions (*batch, T − 1, S, S)."""
        return split_chain(vectors, self.length, self.states)

    def join(
        self, unaries: Float[Tensor, "*batch T S"], transitions: Float[Tensor, "*links"]
    ) -> Float[Tensor, "*batch P"]:
        """Scores of both; one matrix (S, S) of transitions is that of all links and rows."""
        links = (*unaries.shape[:-2], self.length - 1, self.states, self.states)
        return join_chain(unaries, transitions.expand(links))

    def masked(
        self, scores: Float[Tensor, "*batch P"], lengths: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch P"]:
        """Scores whose q is that of the first places alone, as many as a row's length.

        Past its end a chain is in state 0, for which it has the score 0. Whatever the encoder gave
        there gets no gradient.

        Raises:
            ValueError: a length is not from 1 to T.
        """
        if ((lengths < 1) | (lengths > self.length)).any():
            raise ValueError(f"lengths of {self} are from 1 to {self.length}")
        past = torch.arange(self.length, device=scores.device) >= lengths[..., None]
        end = scores.new_full((self.states,), FORBIDDEN)
        end[0] = 0
        unaries, transitions = self.split(scores)
        return self.join(
            torch.where(past[..., None], end, unaries),
            transitions.masked_fill(past[..., 1:, None, None], 0),
        )

    def _past(self, scores: Float[Tensor, "*batch P"]) -> Bool[Tensor, "*batch T"]:
        """The places past a row's end: all states but 0 are forbidden. Of one state, all places."""
        return forbidden(self.split(scores).unaries[..., 1:]).all(dim=-1)

    def _entries(self, places: Bool[Tensor, "*batch T"]) -> Bool[Tensor, "*batch P"]:
        """The entries of states at places, and of transitions to them."""
        states = self.states
        links = places[..., 1:, None, None].expand(*places.shape[:-1], -1, states, states)
        return torch.cat([places.repeat_interleave(states, dim=-1), links.flatten(-3)], dim=-1)

    def every(self, like: Tensor) -> Int[Tensor, "M T"]:
        """In lexicographic order."""
        if self.count > MOST_LISTED:
            raise ValueError(
                f"the {self.count} assignments of {self} are too many: "
                f"at most {MOST_LISTED} are listed"
            )
        one = torch.arange(self.states, device=like.device)
        return torch.cartesian_prod(*[one] * self.length).view(-1, self.length)

    def point(
        self, z: Shaped[Tensor, "*batch"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "*points"]:
        return z if z.is_floating_point() else chain_points(z, self.states, dtype)

    def _best(self, scores: Float[Tensor, "*batch P"]) -> Int[Tensor, "*batch T"]:
        """Of equal ones the first in lexicographic order."""
        rows = scores.reshape(-1, *self.scores_shape)
        return best_chains(rows, self.length, self.states).view(*scores.shape[:-1], self.length)

    def plain(self, scores: Float[Tensor, "B P"]) -> "MarkovChain":
        return MarkovChain(self, scores)

    def soft(self, scores: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        return self.plain(scores.reshape(-1, *self.scores_shape)).marginals().view_as(scores)

    def noise(
        self, like: Float[Tensor, "B P"], sampler: Sampler, samples: int
    ) -> Float[Tensor, "B {samples} P"]:
        """Standard Gumbel, of each state and transition up to the end of a row's chain."""
        past = self._entries(self._past(like))
        return sampler.gumbel(like, samples).masked_fill(past[:, None], 0)

    def noise_slope(self, noise: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return -(-noise).expm1()

    def nearest(self, target: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        """By the active-set method, to its tolerance. Where the target says, as masked scores do,
        that a chain has an end, it is that of the shorter chain, and state 0 past it."""
        rows = target.detach().reshape(-1, *self.scores_shape).double()
        past = self._past(rows)

        def oracle(scores: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
            found = self.point(self.best(scores), scores.dtype)
            return found.masked_fill(self._entries(self._past(scores)), 0)

        marked = rows.masked_fill(self._entries(past) & ~forbidden(rows), 0)
        unaries, transitions = self.split(sparsemap(marked, oracle).marginals)
        end = torch.zeros_like(unaries[0, 0])
        end[0] = 1
        unaries = torch.where(past[..., None], end, unaries)
        ending = unaries[:, :-1, :, None] * end
        transitions = torch.where(past[:, 1:, None, None], ending, transitions)
        return self.join(unaries, transitions).view_as(target).to(target.dtype)

    def centred(self, scores: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        """Points differ in which state each place has, f_t, and, beyond what follows from that, in
        the parts of transitions whose rows and columns sum to zero.

        Of a place with n links, f_t is spread over its states, the rows of one link, and the
        columns of the other, as f, f / S and f / S: it has 1 + n / S times the squared norm of its
        states alone. Where scores say, as masked ones do, that a chain has an end, they are those
        of the shorter chain, and 0 past it.
        """
        past = self._past(scores)
        no_link = past[..., 1:, None, None]
        unaries, x = self.split(scores)
        unaries = (unaries - unaries.mean(dim=-1, keepdim=True)).masked_fill(past[..., None], 0)
        x = (x - x.mean(dim=(-2, -1), keepdim=True)).masked_fill(no_link, 0)
        rows, columns = x.mean(dim=-1), x.mean(dim=-2)
        links = (~past[..., 1:, None]).to(x.dtype)
        n = F.pad(links, (0, 0, 0, 1)) + F.pad(links, (0, 0, 1, 0))
        f = unaries + F.pad(rows, (0, 0, 0, 1)) + F.pad(columns, (0, 0, 1, 0))
        f = f / (1 + n / self.states)
        left = f[..., :-1, :] / self.states - rows
        right = f[..., 1:, :] / self.states - columns
        x = x + left[..., :, None] + right[..., None, :]
        return self.join(f, x.masked_fill(no_link, 0))

    def topk_sparsemax(
        self, scores: Float[Tensor, "B P"], k: int
    ) -> tuple[Int[Tensor, "B {k} T"], Float[Tensor, "B {k}"]]:
        return topk_sparsemax_chains(scores, self.length, self.states, k)


class MarkovChain(Structured):
    """The plain q, as the law of a state at the first place, and of a state given the one before.

    The recursion is over `below_the_best` of the scores, where no sum is far from 0.
    """

    space: Chains

    @cached_property
    def _log_q(self) -> ChainParts:
        """Scores of the same q whose log-partition is 0: log q(z_0) and, of later places, 0; and
        log q(z_{t+1} | z_t)."""
        space = self.space
        first, x = space.split(below_the_best(self.scores, space.length, space.states))
        a = [torch.zeros_like(first[:, 0])]
        for link in x.unbind(1)[::-1]:
            a.append((link + a[-1][:, None, :]).logsumexp(dim=2))
        after = torch.stack(a[::-1], dim=1)
        x = x + after[:, 1:, None, :] - after[:, :-1, :, None]
        start = (first[:, :1] + after[:, :1]).log_softmax(dim=2)
        return ChainParts(torch.cat([start, first[:, 1:]], dim=1), x)

    @cached_property
    def _marginals(self) -> Float[Tensor, "B P"]:
        log_q = self._log_q
        here, pairs = [log_q.unaries[:, 0].exp()], []
        for link in log_q.transitions.exp().unbind(1):
            pairs.append(here[-1][:, :, None] * link)
            here.append(pairs[-1].sum(dim=1))
        transitions = torch.stack(pairs, dim=1) if pairs else log_q.transitions
        return self.space.join(torch.stack(here, dim=1), transitions)

    def sample(self, sampler: Sampler, samples: int) -> Int[Tensor, "B {samples} T"]:
        """Place by place, each state given the one before."""
        first, x = (part.detach().exp() for part in self._log_q)
        z = [sampler.categorical(first[:, 0], samples)]
        row = torch.arange(len(first), device=first.device)[:, None]
        for link in x.unbind(1):
            z.append(sampler.categorical(link[row, z[-1]], 1).squeeze(1))
        return torch.stack(z, dim=2)

    def log_prob(self, z: Shaped[Tensor, "B S *z"]) -> Float[Tensor, "B S"]:
        log_q = self.space.join(*self._log_q)
        if z.is_floating_point():
            return (z * log_q[:, None]).sum(dim=2)
        return sums_along(log_q, z, self.space.states)

    def entropy(self) -> Float[Tensor, " B"]:
        """−log q, which is linear in the point, at the marginals."""
        return -(self._marginals * self.space.join(*self._log_q)).sum(dim=1)

    def marginals(self) -> Float[Tensor, "B P"]:
        return self._marginals
