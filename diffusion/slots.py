"""Who computes next when there are more images than places in one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Capacity:
    """What one machine computes of one network; `diffusion.batching.measure` finds it."""

    quick: int  # rows of a batch that a single image can wait for
    full: int  # rows of the batch with the most of them per second
    images_per_second: float  # at `full`
    in_flight: int  # images that are begun and not done, at most

    def at_most(self, images: int) -> Capacity:
        """The same machine with room for so many images at once."""
        return replace(self, quick=min(self.quick, images), full=min(self.full, images))

    def slots(self, claims: Sequence[Claim]) -> int:
        """Images of the next batch.

        Large batches make the most of the machine when everybody has as far to go; where a
        short request is among long ones, it should not pay for their company.
        """
        # By their whole length: of equals, one is always a little ahead.
        calls = [max(claim.calls, claim.calls_left) for claim in claims]
        most = self.full if 2 * min(calls) >= max(calls) else self.quick
        due = sum(claim.images for claim in claims)
        # Images with guidance take two rows each.
        most = max(most * due // sum(claim.images * claim.rows for claim in claims), 1)
        if len(claims) > 1:
            return min(due, most)  # whoever is done with a row claims the next one at once
        return math.ceil(due / math.ceil(due / most))  # 8 of at most 6 are 4 and 4


@dataclass(frozen=True)
class Claim:
    """What one visitor would have computed now."""

    images: int  # that are due
    calls_left: int  # until the visitor has everything
    served: int  # the last tick in which the visitor had a slot
    calls: int = 0  # from the visitor's first to the last
    rows: int = 1  # of the network's batch that an image takes


def share(claims: Sequence[Claim], slots: int, tick: int) -> list[int]:
    """How many slots each claim gets: half for the fewest calls left, half for the longest wait.

    The second half is dealt in equal parts, so that a visitor with sixteen faces takes no more
    of it than one with a single face, as long as both wait.
    """
    given = [0] * len(claims)
    everybody = range(len(claims))
    nearly_done = sorted(everybody, key=lambda i: (claims[i].calls_left, claims[i].served))
    longest_wait = sorted(everybody, key=lambda i: (claims[i].served, claims[i].calls_left))

    def give(i: int, most: int) -> None:
        given[i] += min(most, claims[i].images - given[i], slots - sum(given))

    half = (slots + tick % 2) // 2  # an odd slot, or the only one, goes to both in turn
    for i in nearly_done:
        give(i, half - sum(given))
    while sum(given) < min(slots, sum(claim.images for claim in claims)):
        waiting = [i for i in longest_wait if given[i] < claims[i].images]
        part = max((slots - sum(given)) // len(waiting), 1)
        for i in waiting:
            give(i, part)
    return given
