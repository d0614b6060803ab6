"""Random numbers by name, so that no draw depends on what else was drawn before it."""

import hashlib

import torch
from jaxtyping import Int64
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a hash of its parts, the same on every machine.

    torch's generator for the CPU takes its low 32 bits: of the some 400,000 streams of the longest
    cells twenty pairs or so are expected to be equal.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Streams:
    """Generators that depend on the run's seed, a name and a number, and on nothing else.

    Two estimators that ask for the same stream at the same step get the same numbers; a run that
    is taken up at a later step gets those that it would have got.
    """

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.seed = seed
        self.device = device
        self._orders: dict[str, tuple[int, int, Tensor]] = {}

    def generator(self, name: str, number: int = 0, device: str | None = None) -> torch.Generator:
        """A fresh generator for stream `name` at `number` (a step, an epoch, a batch)."""
        generator = torch.Generator(device=device or self.device)
        return generator.manual_seed(derive_seed(self.seed, name, number))

    def shuffled(
        self, name: str, count: int, batch_size: int, step: int
    ) -> Int64[Tensor, " {batch_size}"]:
        """Indices of the batch at `step` when `count` items are reshuffled every epoch.

        A last, partial batch of an epoch is left out. Indices are on the CPU.

        Raises:
            ValueError: there are fewer items than a batch takes.
        """
        if count < batch_size:
            raise ValueError(f"a batch of {batch_size} was asked for, of {count} items")
        epoch, place = divmod(step, count // batch_size)
        known = self._orders.get(name)
        if known is None or known[:2] != (epoch, count):
            order = torch.randperm(count, generator=self.generator(name, epoch, device="cpu"))
            known = self._orders[name] = (epoch, count, order)
        order = known[2]
        return order[place * batch_size : (place + 1) * batch_size]
