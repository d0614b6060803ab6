"""The recursions for the best chain as compiled loops, a row at a time, on the CPU.

They take the steps of the whole-tensor operations in `chains`, and sum in float64 as these do.
"""

import numpy as np

from estimators.mappings.kept import loops_of

_loops = loops_of(__file__)


@_loops
def ahead(scores: np.ndarray, found: np.ndarray) -> None:
    """Fill in the best sum (B, T, S) of what comes after each state, for scores (B, P)."""
    value = np.empty(found.shape[2])
    for row in range(len(scores)):
        _fill(scores[row], found[row], value)


@_loops
def best(scores: np.ndarray, chains: np.ndarray, states: int) -> None:
    """Fill in the chain (B, T) of highest score."""
    length = chains.shape[1]
    after, value = np.empty((length, states)), np.empty(states)
    for row in range(len(scores)):
        score = scores[row]
        _fill(score, after, value)
        # The first state is chosen as if a transition of score 0 led to it.
        chosen = 0
        for place in range(length):
            link = (length + (place - 1) * states + chosen) * states
            top = -np.inf
            chosen = 0
            for state in range(states):
                sum_ = score[place * states + state] + after[place, state]
                if place > 0:
                    sum_ = score[link + state] + sum_
                if sum_ > top:
                    top, chosen = sum_, state
            chains[row, place] = chosen


@_loops
def _fill(score: np.ndarray, after: np.ndarray, value: np.ndarray) -> None:
    """The best sum (T, S) of what comes after each state, for the scores of a row."""
    length, states = after.shape
    after[length - 1] = 0
    for place in range(length - 1, 0, -1):
        for state in range(states):
            value[state] = score[place * states + state] + after[place, state]
        for before in range(states):
            link = (length + (place - 1) * states + before) * states
            top = score[link] + value[0]
            for state in range(1, states):
                top = max(top, score[link + state] + value[state])
            after[place - 1, before] = top
