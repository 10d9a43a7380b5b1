"""Near-duplicates: the same picture again, re-encoded, resized or slightly changed.

Two pictures are near-duplicates where both hold:
- their 8x8 thumbnails differ by an RMSE of at most `rmse` on a scale of 0 to 255, colour counting a quarter of
  brightness as in JPEG itself; of pale pictures less is allowed, 1 + 5 % of the thumbnail's spread;
- their dHashes differ in at most 14 of 64 bits;
- of pictures of 64 pixels a side and more, no cell of 16x16 differs in brightness by more than 12.
On 1,797 digits of `load_digits` drawn at 32x32 and on the demo's styles, copies (JPEG at quality 70, x0.75 to x2)
lie below 2.7, other pictures above 7; dHash alone, at 2 bits, calls 66 % of these digits duplicates. Of 4,000 digits of
MNIST 0.05 % have a near-duplicate, of 2,000 logos none; of 400 drawn faces that differ in eyes or mouth 21 % had one
with another expression before 16x16 cells were asked, and none has since (copies differ there by 6 at most).

All pairs are compared, exactly: |mean(a) - mean(b)| <= RMSE(a, b), so only pictures of like brightness meet, in one
matrix product a block. Fingerprints are whole numbers small enough for float32 to be exact, so that results do not
depend on the machine. Shapes: N pictures, F = 192 numbers a thumbnail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

DHASH_BITS = 14
DETAIL = 12
COLOUR_WEIGHT = 0.25
PALE_FLOOR = 1.0
PALE_SHARE = 0.05
BLOCK = 256
MAX_EDGES = 4_000_000

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
_NO_PAIRS: Indices = np.empty((2, 0), dtype=np.int64)
_SCALE = 64 * (1 + 2 * COLOUR_WEIGHT**2)
"""Divides a squared distance of features: cells, times the summed weights of brightness and the two colours."""


@dataclass(frozen=True)
class Prints:
    """Fingerprints of N pictures.

    `raw` (N, 208) bytes that are equal where all fingerprints are, `dhash` (N,) 64 bits, `features` (N, F) whole
    numbers (brightness of 64 cells, then weighted blue and red), `norms` (N,) their squared lengths, `mean` and
    `spread` (N,) of brightness, `detail` (N, 256) brightness of finer cells, and whether it is known (N,).
    """

    raw: NDArray[np.uint8]
    dhash: NDArray[np.uint64]
    features: Floats
    norms: Indices
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    detail: NDArray[np.uint8]
    has_detail: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.dhash)

    def take(self, rows: Indices) -> Prints:
        """Some of the pictures."""
        return Prints(*(array[rows] for array in vars(self).values()))


def prints_of(dhashes: Iterable[bytes], thumbnails: Iterable[bytes], details: Iterable[bytes] = ()) -> Prints:
    """Fingerprints from the manifest's columns `dhash` (8 bytes each), `thumbnail` (192) and `detail` (256, or empty).

    Without details pictures are compared by the others alone.
    """
    bits = np.frombuffer(b"".join(dhashes), dtype=np.uint8).reshape(-1, 8)
    thumbs = np.frombuffer(b"".join(thumbnails), dtype=np.uint8).reshape(-1, 192)
    cells = _cells(thumbs)
    bright = cells[:, :64].astype(np.int64)
    total, norms = bright.sum(axis=1), np.einsum("ij,ij->i", cells, cells, dtype=np.int64)
    spread = np.sqrt(64 * np.einsum("ij,ij->i", bright, bright) - total**2) / 64
    whole = bits.view(">u8").ravel().astype(np.uint64)
    known = list(details) or [b""] * len(bits)
    has_detail = np.array([bool(one) for one in known], dtype=np.bool_)
    detail = np.frombuffer(b"".join(one or bytes(256) for one in known), dtype=np.uint8).reshape(-1, 256)
    short = b"".join(blake2b(one or b"", digest_size=8).digest() for one in known)
    raw = np.hstack([bits, thumbs, np.frombuffer(short, dtype=np.uint8).reshape(-1, 8)])
    return Prints(raw, whole, cells.astype(np.float32), norms, total / 64, spread, detail, has_detail)


def _cells(thumbs: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Brightness, and a quarter of blue and red difference (ITU-R BT.601), in whole numbers: (N, 192)."""
    red, green, blue = (thumbs[:, channel::3].astype(np.int32) for channel in range(3))
    bright = (299 * red + 587 * green + 114 * blue + 500) // 1000
    colours = ((141 * (blue - bright) + 500) // 1000, (178 * (red - bright) + 500) // 1000)
    return np.hstack([bright, *colours]).astype(np.int16)


def joined(first: Prints, second: Prints) -> Prints:
    """The pictures of `first`, then those of `second`."""
    return Prints(*(np.concatenate(pair) for pair in zip(vars(first).values(), vars(second).values(), strict=True)))


def near_any(new: Prints, others: Prints, rmse: float) -> NDArray[np.bool_]:
    """Which of `new` (N,) are near-duplicates of any of `others`."""
    found = np.zeros(len(new), dtype=np.bool_)
    for rows, _ in near_pairs(new, others, rmse):
        found[rows] = True
    return found


def components(new: Prints, known: Prints, known_groups: Indices, rmse: float, joining: Indices = _NO_PAIRS) -> Indices:
    """A label (N + K,) a picture, new ones first: equal where a chain of near-duplicates joins two pictures.

    Known pictures are not compared among themselves; those of one number in `known_groups` (K,) are joined already.
    `joining` (2, P) are pairs that belong together whatever they look like.
    """
    total, both = len(new) + len(known), joined(new, known)
    _, first, inverse = np.unique(known_groups, return_index=True, return_inverse=True)
    edges = [joining, np.stack([np.arange(len(known)), first[inverse]]) + len(new)]
    # Pictures of the same fingerprints are one: else a night of 5,000 white pages would have 25 million pairs.
    _, first, inverse = np.unique(both.raw.view("V208").ravel(), return_index=True, return_inverse=True)
    edges.append(np.stack([np.arange(total), first[inverse]]))
    distinct, own = np.sort(first), np.unique(first[inverse[: len(new)]])
    for rows, columns in near_pairs(both.take(own), both.take(distinct), rmse):
        edges.append(np.stack([own[rows], distinct[columns]]))
        if sum(edge.shape[1] for edge in edges) > MAX_EDGES + 3 * total:
            edges = [_forest(edges, total)]
    labels: Indices = _forest(edges, total)[1]
    return labels


def near_pairs(new: Prints, others: Prints, rmse: float) -> Iterator[tuple[Indices, Indices]]:
    """Near-duplicate pairs, a block at a time: (rows of `new`, rows of `others`), of equal length."""
    order, own_order = (np.argsort(prints.mean, kind="stable") for prints in (others, new))
    means, reach = others.mean[order], rmse * np.sqrt(_SCALE / 64)
    right = _augmented(others.take(order), own=False)
    for start in range(0, len(new), BLOCK):
        rows = own_order[start : start + BLOCK]
        left = _augmented(new.take(rows), own=True)
        low = np.searchsorted(means, new.mean[rows[0]] - reach, side="left")
        high = np.searchsorted(means, new.mean[rows[-1]] + reach, side="right")
        for at in range(low, high, 64 * BLOCK):
            score = left @ right[at : min(at + 64 * BLOCK, high)].T
            i, j = np.nonzero(score >= -0.5 * _limits(new.spread[rows], rmse)[:, None])
            squared = -2.0 * score[i, j].astype(np.float64)
            i, j = rows[i], order[at + j]
            near = squared <= _limits(np.minimum(new.spread[i], others.spread[j]), rmse)
            near &= np.bitwise_count(new.dhash[i] ^ others.dhash[j]) <= DHASH_BITS
            near[near] = _alike(new, others, i[near], j[near])
            yield i[near], j[near]


def _alike(new: Prints, others: Prints, rows: Indices, columns: Indices) -> NDArray[np.bool_]:
    """Of which pairs (P,) no cell of the detail differs by much; of those without detail nobody knows better."""
    found = np.ones(len(rows), dtype=np.bool_)
    for start in range(0, len(rows), 64 * BLOCK):
        i, j = rows[start : start + 64 * BLOCK], columns[start : start + 64 * BLOCK]
        apart = np.abs(new.detail[i].astype(np.int16) - others.detail[j]).max(axis=1, initial=0)
        known = new.has_detail[i] & others.has_detail[j]
        found[start : start + 64 * BLOCK] = ~known | (apart <= DETAIL)
    return found


def distances(one: Prints, others: Prints) -> NDArray[np.float64]:
    """The RMSE of one picture's thumbnail from that of each of `others` (N,), colour weighted as above, 0 to 255."""
    apart = others.features.astype(np.float64) - one.features.astype(np.float64)
    rmse: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", apart, apart) / _SCALE)
    return rmse


def _augmented(prints: Prints, *, own: bool) -> Floats:
    """Features with two more columns, so that a product of two such rows is -1/2 of the squared distance."""
    half, one = -0.5 * prints.norms.astype(np.float32), np.ones(len(prints), dtype=np.float32)
    return np.column_stack([prints.features, half, one] if own else [prints.features, one, half])


def _limits(spread: NDArray[np.float64], rmse: float) -> NDArray[np.float64]:
    """The largest squared distance of features that is near, for pairs whose paler picture has this spread (P,)."""
    limits: NDArray[np.float64] = np.minimum(PALE_FLOOR + PALE_SHARE * spread, rmse) ** 2 * _SCALE
    return limits


def _forest(edges: list[Indices], total: int) -> Indices:
    """The same components with one edge a picture, to its component's number: (2, total)."""
    pairs = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(pairs.shape[1], dtype=np.bool_), (pairs[0], pairs[1])), shape=(total, total))
    _, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)
    return np.stack([np.arange(total), first[labels]]).astype(np.int64)
