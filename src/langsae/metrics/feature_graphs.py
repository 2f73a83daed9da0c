"""Groups of similar tokens, one feature after another, from as few similarities as decide them.

For vocabularies too large for a graph of all their tokens. Two things save work: greedy never
compares a token that has a group, and components need no row of a token once all tokens without a
complete row are in one component. Similarities are made in blocks of up to 16 tokens by those
left, piece by piece of the vectors, so that they come from the processor's cache.
"""

import numba
import numpy as np

LARGEST = 4096  # tokens of a feature: its table of known pairs takes that squared, in bytes
# A float32 product of unit vectors is off by less; closer to the bar than this, float64 decides.
BAND = 1e-5
_HEADS = 16  # tokens compared with those left at a time
_CHUNK = 1024  # dimensions at a time: 4 kB a token
_UNKNOWN, _APART, _NEAR = 2, 0, 1


@numba.njit(cache=True, nogil=True, fastmath=True)
def _add_dots(unit, rows, columns, first, last, out):
    """out[i, j] += <unit[rows[i]], unit[columns[j]]> over dimensions first..last - 1; 4 x 4."""
    # slices counted from 0: an index that might be negative is not compiled to vector instructions
    a0, a1 = unit[rows[0], first:last], unit[rows[1], first:last]
    a2, a3 = unit[rows[2], first:last], unit[rows[3], first:last]
    b0, b1 = unit[columns[0], first:last], unit[columns[1], first:last]
    b2, b3 = unit[columns[2], first:last], unit[columns[3], first:last]
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = np.float32(0)
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = np.float32(0)
    for k in range(last - first):  # sixteen sums in registers: compiled to vector instructions
        x0, x1, x2, x3 = a0[k], a1[k], a2[k], a3[k]
        y0, y1, y2, y3 = b0[k], b1[k], b2[k], b3[k]
        s00, s01, s02, s03 = s00 + x0 * y0, s01 + x0 * y1, s02 + x0 * y2, s03 + x0 * y3
        s10, s11, s12, s13 = s10 + x1 * y0, s11 + x1 * y1, s12 + x1 * y2, s13 + x1 * y3
        s20, s21, s22, s23 = s20 + x2 * y0, s21 + x2 * y1, s22 + x2 * y2, s23 + x2 * y3
        s30, s31, s32, s33 = s30 + x3 * y0, s31 + x3 * y1, s32 + x3 * y2, s33 + x3 * y3
    sums = ((s00, s01, s02, s03), (s10, s11, s12, s13), (s20, s21, s22, s23), (s30, s31, s32, s33))
    for i in range(4):
        for j in range(4):
            out[i, j] += sums[i][j]


@numba.njit(cache=True, nogil=True)
def _products(unit, rows, columns):
    """<unit[rows[i]], unit[columns[j]]>, float32; both index arrays have multiples of 4."""
    out = np.zeros((len(rows), len(columns)), np.float32)
    for first in range(0, unit.shape[1], _CHUNK):
        last = min(first + _CHUNK, unit.shape[1])
        for i in range(0, len(rows), 4):
            for j in range(0, len(columns), 4):
                block = out[i : i + 4, j : j + 4]
                _add_dots(unit, rows[i : i + 4], columns[j : j + 4], first, last, block)
    return out


@numba.njit(cache=True, nogil=True)
def _in_fours(token, entries):
    """The tokens of these entries, the last repeated up to a multiple of 4."""
    out = np.empty((len(entries) + 3) // 4 * 4, np.int64)
    for at in range(len(out)):
        out[at] = token[entries[min(at, len(entries) - 1)]]
    return out


@numba.njit(cache=True, nogil=True)
def _exactly(a, b):
    """<a, b> in float64."""
    total = 0.0
    for k in range(len(a)):
        total += np.float64(a[k]) * np.float64(b[k])
    return total


@numba.njit(cache=True, nogil=True)
def decide(unit, pairs, cosine, near):
    """Set near[a, b] for the pairs [n, 2] of rows of `unit` by float64."""
    for at in range(len(pairs)):
        a, b = pairs[at]
        near[a, b] = _exactly(unit[a], unit[b]) > cosine


@numba.njit(cache=True, nogil=True)
def _compare(unit, token, near, heads, columns, cosine):
    """Fill in `near` for the heads and those columns that some head is not yet compared with.

    Returns how many products of vectors were made.
    """
    wanted = np.empty(len(columns), np.int64)
    count = 0
    for column in columns:
        for head in heads:
            if near[head, column] == _UNKNOWN:
                wanted[count] = column
                count += 1
                break
    if count == 0:
        return 0
    wanted = wanted[:count]
    rows, others = _in_fours(token, heads), _in_fours(token, wanted)
    products = _products(unit, rows, others)
    for i in range(len(heads)):
        for j in range(count):
            value = np.float64(products[i, j])
            if abs(value - cosine) < BAND:
                value = _exactly(unit[rows[i]], unit[others[j]])
            linked = _NEAR if value > cosine else _APART
            near[heads[i], wanted[j]] = near[wanted[j], heads[i]] = linked
    return len(rows) * len(others)


@numba.njit(cache=True, nogil=True)
def _greedy(unit, token, near, cosine, group):
    left, n_left = np.arange(len(token)), len(token)
    number = products = 0
    while n_left:
        # the first alone: where all are similar it suffices
        heads = left[: min(n_left, _HEADS if number else 1)].copy()
        products += _compare(unit, token, near, heads, left[:n_left], cosine)
        for head in heads:
            if group[head] >= 0:
                continue
            for entry in left[:n_left]:
                if group[entry] < 0 and (entry == head or near[head, entry] == _NEAR):
                    group[entry] = number
            number += 1
        kept = 0
        for at in range(n_left):
            if group[left[at]] < 0:
                left[kept] = left[at]
                kept += 1
        n_left = kept
    return products


@numba.njit(cache=True, nogil=True)
def _root(parent, entry):
    while parent[entry] != entry:
        parent[entry] = parent[parent[entry]]
        entry = parent[entry]
    return entry


@numba.njit(cache=True, nogil=True)
def _next_heads(parent, open_, n_open, members):
    """Some open entries outside the component that has most of them; none when all are in it."""
    members[:] = 0
    for at in range(n_open):
        members[_root(parent, open_[at])] += 1
    largest = np.argmax(members)
    heads, count = np.empty(_HEADS, np.int64), 0
    for at in range(n_open):
        if count < _HEADS and _root(parent, open_[at]) != largest:
            heads[count] = open_[at]
            count += 1
    return heads[:count]


@numba.njit(cache=True, nogil=True)
def _connected(unit, token, near, cosine, group):
    """Open entries are those whose links to other open entries are not all known."""
    n = len(token)
    parent, members = np.arange(n), np.empty(n, np.int64)
    open_, n_open, products = np.arange(n), n, 0
    heads = open_[:1].copy()
    while len(heads):
        products += _compare(unit, token, near, heads, open_[:n_open], cosine)
        for head in heads:
            for entry in open_[:n_open]:
                if near[head, entry] == _NEAR:
                    a, b = _root(parent, head), _root(parent, entry)
                    parent[max(a, b)] = min(a, b)
        kept = 0
        for at in range(n_open):
            is_head = False
            for head in heads:
                is_head |= head == open_[at]
            if not is_head:
                open_[kept] = open_[at]
                kept += 1
        n_open = kept
        heads = _next_heads(parent, open_, n_open, members)
    number = 0
    for entry in range(n):  # a root is the first of its component
        if parent[entry] == entry:
            group[entry] = number
            number += 1
    for entry in range(n):
        group[entry] = group[_root(parent, entry)]
    return products


@numba.njit(cache=True, nogil=True)
def group_features(unit, cosine, starts, token, connected, greedy):
    """Write both groupings of each feature's entries; returns the products of vectors made.

    unit: float32 [U, d] of length 1; starts: int64 [F + 1]; token: int64 [nnz], rows of `unit`,
    those that found groups first; connected, greedy: int64 [nnz].
    """
    products = 0
    for feature in range(len(starts) - 1):
        part = slice(starts[feature], starts[feature + 1])
        mine = token[part]
        near = np.full((len(mine), len(mine)), _UNKNOWN, np.uint8)
        greedy[part] = -1
        if len(mine):
            products += _greedy(unit, mine, near, cosine, greedy[part])
            products += _connected(unit, mine, near, cosine, connected[part])
    return products
