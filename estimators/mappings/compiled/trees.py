"""Sums and maxima over trees as compiled loops, a row at a time, on the CPU.

`trees.py` says what is computed. Weights exp(score) are numbers m · 2^(512 e) with m from 2^−256
to 2^256 and a whole e, both float64: no score is too large, and a product or a sum of two costs
about as much as one of floats. Next to a number, where it is wanted, goes the derivative of its log
in one direction.
"""

import math

import numpy as np

from estimators.mappings.kept import loops_of

_UP = 2.0**512
_DOWN = 2.0**-512
_LARGE = 2.0**256
_SMALL = 2.0**-256
_LOG_UNIT = 512 * math.log(2)
_UNIT_HIGH = math.floor(_LOG_UNIT * 2**18) / 2**18  # of few bits: times e it is exact
_UNIT_LOW = 2.839514264046623e-06  # 512 log 2 − _UNIT_HIGH

_loops = loops_of(__file__, error_model="numpy")


@_loops
def best_trees(scores: np.ndarray, heads: np.ndarray) -> None:
    """Fill in the tree of highest score of every row, (B, n), for scores (B, n, n)."""
    rows, words, _ = scores.shape
    through = np.zeros((words, words, words), dtype=np.bool_)
    for row in range(rows):
        s = scores[row].copy()
        for k in range(words - 1, 0, -1):
            top = -np.inf
            for j in range(k):
                top = max(top, s[k, j])
            for i in range(k):
                step = s[i, k] - top
                for j in range(k):
                    detour = step + s[k, k if i == j else j]
                    through[k, i, j] = detour > s[i, j]
                    if detour > s[i, j]:
                        s[i, j] = detour
        head, moved = heads[row], np.zeros(words, dtype=np.bool_)
        head[0] = 0
        for k in range(1, words):
            for i in range(k):
                moved[i] = through[k, i, head[i]]
            own, top = k, -np.inf
            if not insert(head, moved, k):
                for j in range(k):
                    if not moved[j] and s[k, j] > top:
                        own, top = j, s[k, j]
            head[k] = own


@_loops
def insert(head: np.ndarray, moved: np.ndarray, k: int) -> bool:
    """Make the words that `moved` says children of word k; whether k is the root then.

    After it `moved` says which of the words before k are below k, and can't be its heads.
    """
    root = False
    seen = np.zeros(k, dtype=np.bool_)
    for i in range(k):
        if moved[i]:
            root = root or head[i] == i
            head[i] = k
            seen[i] = True
    for i in range(k):
        j = i
        for _ in range(k):  # which are enough of a tree, and an end of what is none
            if seen[j] or head[j] == j:
                break
            j = head[j]
        below = moved[j]
        j = i
        while not seen[j]:
            seen[j] = True
            moved[j] = below
            if head[j] == j:
                break
            j = head[j]
    return root


@_loops
def insert_rows(heads: np.ndarray, moved: np.ndarray, k: int, roots: np.ndarray) -> None:
    """`insert` for every row: heads (N, n), moved (N, k), roots (N,)."""
    for row in range(len(heads)):
        roots[row] = insert(heads[row], moved[row], k)


@_loops
def partition(
    scores: np.ndarray, log_totals: np.ndarray, through: np.ndarray, log_weights: np.ndarray
) -> None:
    """Fill in log Z (B,) of scores (B, n, n), and what samples are drawn by.

    Args:
        through: (B, Σ k²), or empty where no samples are to be drawn; for each word k from 1 on,
            (k, k): the share of paths by way of k in the weight of i → j.
        log_weights: (B, n, n): in row k those of k → j for j < k, when words after k are out.
    """
    rows, words, _ = scores.shape
    order = np.arange(words)
    t = np.zeros((words, words))
    share = np.zeros((words, words))
    for row in range(rows):
        m, e = _weights(scores[row])
        total = 0.0
        for k in range(words - 1, 0, -1):
            sum_m, sum_e, _ = _eliminate(m, e, t, order, k, share, through.shape[1] > 0, False)
            total += _log(sum_m, sum_e)
            if through.shape[1] > 0:
                start = (k - 1) * k * (2 * k - 1) // 6
                for i in range(k):
                    for j in range(k):
                        through[row, start + i * k + j] = share[i, j]
        log_totals[row] = total + _log(m[0, 0], e[0, 0])
        for k in range(words):
            for j in range(k):
                log_weights[row, k, j] = _log(m[k, j], e[k, j])


@_loops
def passages(
    scores: np.ndarray,
    direction: np.ndarray,
    moves: bool,
    marginals: np.ndarray,
    changes: np.ndarray,
) -> None:
    """Fill in the marginals and, with Y[m, h] as `trees.py` has it, what log Y changes by in a
    direction of the scores, if that moves.

    For a word m all others have to be eliminated, in any order: each half of the words goes first
    for the other half, and so on with the halves of what is left.
    """
    rows, words, _ = scores.shape
    levels = 1
    while 2 ** (levels - 1) < words:
        levels += 1
    shape = (levels, words, words)
    m, e, t = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    sums_m, sums_e, sums_t = np.zeros(shape[:2]), np.zeros(shape[:2]), np.zeros(shape[:2])
    orders = np.zeros((levels, words), dtype=np.int64)
    lows, highs = np.zeros(levels, dtype=np.int64), np.zeros(levels, dtype=np.int64)
    sizes = np.zeros(levels, dtype=np.int64)
    share = np.zeros((words, words))
    y_m, y_e, y_t = np.zeros(words), np.zeros(words), np.zeros(words)
    highs[0] = sizes[0] = words
    for row in range(rows):
        m[0], e[0] = _weights(scores[row])
        if moves:
            t[0] = direction[row]
        for word in range(words):
            level = 0
            while highs[level] - lows[level] > 1:
                low, high = lows[level], highs[level]
                middle = (low + high) // 2
                level += 1
                left = word < middle
                lows[level] = low if left else middle
                highs[level] = middle if left else high
                sizes[level] = high - low
                if word > lows[level]:
                    continue  # as it was for the word before
                order, kept_words = orders[level], highs[level] - lows[level]
                for place in range(high - low):
                    order[place] = low + (place if left else (place + middle - low) % (high - low))
                for i in range(low, high):
                    for j in range(low, high):
                        m[level, i, j], e[level, i, j] = m[level - 1, i, j], e[level - 1, i, j]
                        t[level, i, j] = t[level - 1, i, j]
                for place in range(high - low - 1, kept_words - 1, -1):
                    k = order[place]
                    sums_m[level, k], sums_e[level, k], sums_t[level, k] = _eliminate(
                        m[level], e[level], t[level], order, place, share, moves, moves
                    )
            for at in range(level, 0, -1):
                order = orders[at]
                for place in range(highs[at] - lows[at], sizes[at]):
                    k = order[place]
                    a_m, a_e, a_t = m[at, k, k], e[at, k, k], t[at, k, k]
                    for other in range(place):
                        j = order[other]
                        if j == word:
                            continue
                        b_m, b_e = m[at, k, j] * y_m[j], e[at, k, j] + y_e[j]
                        a_m, a_e = _plus(a_m, a_e, b_m, b_e)
                        if moves:
                            part = _over(b_m, b_e, a_m, a_e)
                            a_t = (1 - part) * a_t + part * (t[at, k, j] + y_t[j])
                    y_m[k], y_e[k] = _normal(a_m / sums_m[at, k], a_e - sums_e[at, k])
                    y_t[k] = a_t - sums_t[at, k]
            total_m, total_e = m[0, word, word], e[0, word, word]
            y_m[word], y_e[word], y_t[word] = 1.0, 0.0, 0.0
            for k in range(words):
                changes[row, word, k] = y_t[k]
                y_m[k], y_e[k] = _normal(m[0, word, k] * y_m[k], e[0, word, k] + y_e[k])
                if k != word:
                    total_m, total_e = _plus(total_m, total_e, y_m[k], y_e[k])
            for k in range(words):
                marginals[row, word, k] = _over(y_m[k], y_e[k], total_m, total_e)


@_loops
def _eliminate(
    m: np.ndarray,
    e: np.ndarray,
    t: np.ndarray,
    order: np.ndarray,
    place: int,
    share: np.ndarray,
    shares: bool,
    moves: bool,
) -> tuple[float, float, float]:
    """Take the word at a place of the order out, for those before it; the sum of its weights.

    Weights are m and e, changes of their logs t. What goes by way of the word is left in `share`,
    as parts of the new weights.
    """
    k = order[place]
    sum_m, sum_e, sum_t = 0.0, -np.inf, 0.0
    for other in range(place):
        j = order[other]
        sum_m, sum_e = _plus(sum_m, sum_e, m[k, j], e[k, j])
        if moves:
            part = _over(m[k, j], e[k, j], sum_m, sum_e)
            sum_t = (1 - part) * sum_t + part * t[k, j]
    for first in range(place):
        i = order[first]
        step_m, step_e = _normal(m[i, k] / sum_m, e[i, k] - sum_e)
        for second in range(place):
            j = order[second]
            to = k if i == j else j
            by_m, by_e = step_m * m[k, to], step_e + e[k, to]
            m[i, j], e[i, j] = _plus(m[i, j], e[i, j], by_m, by_e)
            if shares:
                share[first, second] = _over(by_m, by_e, m[i, j], e[i, j])
    if moves:
        for first in range(place):
            i = order[first]
            for second in range(place):
                j = order[second]
                change = t[i, k] + t[k, k if i == j else j] - sum_t
                part = share[first, second]
                t[i, j] = (1 - part) * t[i, j] + part * change
    return sum_m, sum_e, sum_t


@_loops
def _weights(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """exp(scores), with all digits."""
    m, e = np.empty(scores.shape), np.empty(scores.shape)
    for i in range(len(scores)):
        for j in range(len(scores)):
            whole = np.floor(scores[i, j] / _LOG_UNIT + 0.5)
            rest = (scores[i, j] - whole * _UNIT_HIGH) - whole * _UNIT_LOW
            m[i, j], e[i, j] = np.exp(min(max(rest, -177.4), 177.4)), whole
    return m, e


@_loops
def _log(m: float, e: float) -> float:
    return e * _UNIT_HIGH + (np.log(m) + e * _UNIT_LOW)


@_loops
def _normal(m: float, e: float) -> tuple[float, float]:
    """With m in its range, where it is one product or ratio away from it."""
    if m >= _LARGE:
        return m * _DOWN, e + 1
    if m < _SMALL:
        return m * _UP, e - 1
    return m, e


@_loops
def _plus(a_m: float, a_e: float, b_m: float, b_e: float) -> tuple[float, float]:
    """The sum of a number and another, which may be a product that is not normal."""
    if a_e == b_e:
        return _normal(a_m + b_m, a_e)
    if a_e > b_e:
        return _normal(a_m + b_m * _DOWN if a_e == b_e + 1 else a_m, a_e)
    return _normal(b_m + a_m * _DOWN if b_e == a_e + 1 else b_m, b_e)


@_loops
def _over(a_m: float, a_e: float, b_m: float, b_e: float) -> float:
    """The share of a number in a sum that it is a part of."""
    if a_e == b_e:
        return min(a_m / b_m, 1.0)
    if a_e == b_e - 1:
        return a_m / b_m * _DOWN
    return min(a_m / b_m * _UP, 1.0) if a_e == b_e + 1 else 0.0
