"""Taking in: from a landing to assets with their splits, and to a quarantine for everything else.

For each file, in the order of paths: read, told from what is withdrawn or known, caption checked, image decoded,
told from what else came tonight; then near-duplicates are grouped and groups divided. The same landing, parameters
and known assets give the same intake.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cl_steps import digests
from cl_steps.config import Ingest
from cl_steps.data import duplicates, splits
from cl_steps.data.aside import write_quarantine
from cl_steps.data.bursts import edges_of
from cl_steps.data.captions import Caption, caption_of
from cl_steps.data.claims import claims_of
from cl_steps.data.images import ImageFacts, inspect, quiet_pillow
from cl_steps.data.kinds import is_picture
from cl_steps.data.landing import Landed, Landing
from cl_steps.data.quarantine import Quarantined, Unusable
from cl_steps.data.shards import MANIFEST_SCHEMA, Asset, write_dataset
from cl_steps.data.sidecars import Claim
from cl_steps.data.withdrawn import NOTHING, Withdrawn
from cl_steps.errors import Unavailable
from cl_steps.landing import names
from cl_steps.landing.archives import Unpacked
from cl_steps.landing.entries import Source
from cl_steps.landing.folder import Folder
from cl_steps.landing.snapshot import Snapshot
from cl_steps.progress import progress

MAX_THREADS = 4
COUNTS = ("new", "duplicates", "near_duplicates", "known", "quarantined")
PRINTS = ("dhash", "thumbnail", "detail")
_WITHDRAWN = Unusable("withdrawn", "this picture was withdrawn from the line: remove it from the landing")


@dataclass(frozen=True)
class LandedAssets:
    """The assets of an intake, sorted by SHA-256; their bytes are read again as one goes, never all held at once."""

    manifest: pa.Table
    landing: Landing
    files: Mapping[str, str]

    def __len__(self) -> int:
        return int(self.manifest.num_rows)

    def __iter__(self) -> Iterator[Asset]:
        """The assets with their bytes; raises Unavailable where a file changed since it was looked at."""
        for row in self.manifest.to_pylist():
            yield Asset(**row, image=self._bytes(row["sha256"]))

    def _bytes(self, sha256: str) -> bytes:
        try:
            content = self.landing.read(self.files[sha256])
        except Unusable:
            content = b""
        if digests.sha256(content) != sha256:
            raise Unavailable(f"{self.files[sha256]!r} changed in the landing while it was taken in: try again")
        return content


@dataclass(frozen=True)
class Intake:
    """What a landing gave: new assets, what is quarantined, and counts.

    `counts` has new, duplicates (the same bytes twice tonight), near_duplicates (of the new, those that repeat
    another picture), known (taken in before) and quarantined (files and lines). `landed` says of all that arrived what
    else became of it.
    """

    assets: LandedAssets
    quarantine: tuple[Quarantined, ...]
    counts: Mapping[str, int]
    landed: Landed

    def write(self, folder: Path, kept: AbstractSet[str] = frozenset()) -> int:
        """Write the dataset folder with its `quarantine.jsonl` and `quarantine/`.

        Args:
            folder: where to.
            kept: keys of what is quarantined and whose bytes an earlier night kept.

        Returns:
            How many contents are not kept, since they are more than `ingest.max_quarantine_bytes`.
        """
        landing = self.assets.landing
        write_dataset(folder, self.assets, in_order=True)
        wanted = [found for found in self.quarantine if found.key not in kept]
        return write_quarantine(folder, self.quarantine, wanted, landing.read, landing.limits.max_quarantine_bytes)


def take_in(
    landing: Path | Source,
    params: Ingest,
    seed: int,
    run: str,
    known: pa.Table | None = None,
    *,
    withdrawn: Withdrawn = NOTHING,
    today: str = "",
) -> Intake:
    """Take in what lies in a landing.

    Args:
        landing: a folder, or another source; it is read only, and nothing outside it is.
        params: limits and shares.
        seed: the line's; with a group's name it fixes the group's split.
        run: written into every row.
        known: manifest rows of all assets taken in before, each SHA-256 once.
        withdrawn: assets that must not come back, nor copies of them; nothing else of them need be known.
        today: the day of the run (ISO 8601), on which consent may have ended; empty: nobody asks.

    Raises:
        NoUsableData: there is no such folder.
    """
    place = Landing.of(_source(landing), params, run)
    before = MANIFEST_SCHEMA.empty_table() if known is None else known
    there = before.filter(pa.array(~withdrawn.among(before, params.near_duplicate_rmse)))
    known_names = frozenset(before["sha256"].to_pylist())
    seen = list(_examine_all(place, Rules(params, known_names, withdrawn.names, today)))
    distinct, num_duplicates = _distinct(place, seen)
    own = _without_copies(place, distinct, withdrawn, params.near_duplicate_rmse)
    usable = _within_quota(place, own, params.max_new_per_source)
    groups = _grouped(usable, there, params.near_duplicate_rmse)
    divided = _divided(usable, groups, there, params, seed)
    rows = [_row(item) | place | {"run": run} for item, place in zip(usable, divided, strict=True)]
    manifest = pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA)
    num_known = sum(item.known for item in seen)
    figures = (len(rows), num_duplicates, groups.repeats(usable), num_known, len(place.refused))
    counts = dict(zip(COUNTS, figures, strict=True))
    files = {item.sha256: item.file for item in usable}
    return Intake(LandedAssets(manifest, place, files), tuple(sorted(place.refused)), counts, place.counted())


def _source(landing: Path | Source) -> Source:
    """The landing with its archives opened; in a snapshot they are."""
    if isinstance(landing, Snapshot):
        return landing
    return Unpacked(Folder(landing) if isinstance(landing, Path) else landing)


@dataclass(frozen=True)
class _Seen:
    """A file that was looked at: its fault, that it is known or no picture, or its caption and facts."""

    file: str
    sha256: str = ""
    known: bool = False
    no_picture: bool = False
    fault: Unusable | None = None
    caption: Caption | None = None
    facts: ImageFacts | None = None


@dataclass(frozen=True)
class Rules:
    """What a file is held against: the line's limits, the SHA-256 of what is known or withdrawn, and the day."""

    params: Ingest
    known: AbstractSet[str]
    withdrawn: AbstractSet[str]
    today: str


def _examine_all(place: Landing, rules: Rules) -> Iterator[_Seen]:
    """Every file, in the order of paths; Pillow decodes outside the interpreter's lock, hence threads."""
    claims = claims_of(place)

    def examined(claim: Claim) -> _Seen:
        return _examine(place, claim, rules)

    with quiet_pillow(), ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        yield from progress(pool.map(examined, claims), len(claims), "taking in")


def _examine(place: Landing, claim: Claim, rules: Rules) -> _Seen:
    seen = _Seen(claim.file)
    try:
        content = place.read(claim.file)
        seen = replace(seen, sha256=digests.sha256(content))
        if seen.sha256 in rules.withdrawn:
            raise _WITHDRAWN
        if seen.sha256 in rules.known:
            return replace(seen, known=True)
        if not claim.source and not names.is_picture(claim.file) and not is_picture(content):
            return replace(seen, no_picture=True)
        if claim.fault:
            raise claim.fault
        caption = caption_of(claim.values, rules.params, rules.today)
        return replace(seen, caption=caption, facts=inspect(content, rules.params))
    except Unusable as fault:
        return replace(seen, fault=fault)


def _distinct(place: Landing, seen: Iterable[_Seen]) -> tuple[list[_Seen], int]:
    """The usable files, each content once (the first path wins), sorted by SHA-256; and how many were left out."""
    first: dict[str, _Seen] = {}
    num_duplicates = 0
    for item in seen:
        if item.fault:
            place.refuse(item.file, item.fault)
        elif item.no_picture:
            place.pass_over(item.file, "others")
        elif not item.known:
            other = first.setdefault(item.sha256, item)
            if other.caption != item.caption:
                reason = "the same image came with another caption, which counts: keep one of the two"
                place.refuse(item.file, Unusable("caption_conflict", reason))
            else:
                num_duplicates += other is not item
    return [first[name] for name in sorted(first)], num_duplicates


def _without_copies(place: Landing, items: list[_Seen], withdrawn: Withdrawn, rmse: float) -> list[_Seen]:
    """Those that are no copies of withdrawn assets; copies are refused."""
    copies = withdrawn.near(_prints(items), rmse)
    for item, is_copy in zip(items, copies, strict=True):
        if is_copy:
            place.refuse(item.file, _WITHDRAWN)
    return [item for item, is_copy in zip(items, copies, strict=True) if not is_copy]


def _within_quota(place: Landing, items: list[_Seen], most: int | None) -> list[_Seen]:
    """Those that one night takes of each source; the others are left. Who names no source is asked for none."""
    taken: Counter[str] = Counter()
    kept = []
    for item in items:
        source = item.caption.source if item.caption else ""
        taken[source] += 1
        if most is not None and source and taken[source] > most:
            place.leave(item.file, "source")
        else:
            kept.append(item)
    return kept


@dataclass(frozen=True, order=True)
class _Home:
    """The place of a group of known assets; the first in order takes a newcomer that lies near several.

    Evaluation comes first: a newcomer must not carry an evaluation picture into what is learnt.
    """

    rank: int
    group: str
    split: str
    sealed: bool


@dataclass(frozen=True)
class _Groups:
    """The near-duplicates of tonight: each item's group, and the places of the groups that were known before."""

    of: list[str]
    homes: Mapping[str, _Home]

    def repeats(self, items: list[_Seen]) -> int:
        """How many items repeat a picture that is known, or that comes before them in their group."""
        return sum(g in self.homes or g != item.sha256 for g, item in zip(self.of, items, strict=True))


def _grouped(items: list[_Seen], known: pa.Table, rmse: float) -> _Groups:
    """Groups as chains of near-duplicates and bursts; a new one is called by its smallest SHA-256, a known one keeps
    its name.
    """
    groups = known["group"].to_pylist()
    _, numbers = np.unique(np.array(groups, dtype=np.str_), return_inverse=True)
    sources = [item.caption.source if item.caption else "" for item in items] + known["source"].to_pylist()
    taken = [item.facts.taken if item.facts else "" for item in items] + known["taken"].to_pylist()
    shot = edges_of(sources, taken)
    labels = duplicates.components(_prints(items), _prints_of(known), numbers, rmse, shot).tolist()
    mine, others = labels[: len(items)], labels[len(items) :]
    homes = _homes(known, others, set(mine))
    names = {label: home.group for label, home in homes.items()}
    for item, label in zip(items, mine, strict=True):
        names.setdefault(label, item.sha256)
    return _Groups([names[label] for label in mine], {home.group: home for home in homes.values()})


def _divided(items: list[_Seen], groups: _Groups, known: pa.Table, params: Ingest, seed: int) -> list[dict[str, Any]]:
    """The splits of all items, as columns group, split and sealed."""
    new: dict[str, set[str]] = {}
    for item, group in zip(items, groups.of, strict=True):
        if group not in groups.homes and item.caption:
            new.setdefault(group, set()).add(item.caption.slice)
    there = zip(*(known[name].to_pylist() for name in ("group", "slice", "split")), strict=True)
    homes = dict(groups.homes)
    for group, split in splits.assign(new, there, params, seed).items():
        sealed = split == "evaluation" and splits.is_sealed(group, params, seed)
        homes[group] = _Home(splits.REQUIRED.index(split), group, split, sealed)
    places = (homes[group] for group in groups.of)
    return [{"group": place.group, "split": place.split, "sealed": place.sealed} for place in places]


def _homes(known: pa.Table, labels: list[int], wanted: AbstractSet[int]) -> dict[int, _Home]:
    homes: dict[int, _Home] = {}
    columns = [known[name].to_pylist() for name in ("group", "split", "sealed")]
    for label, group, split, sealed in zip(labels, *columns, strict=True):
        if label in wanted:
            home = _Home(splits.REQUIRED.index(split), group, split, sealed)
            homes[label] = min(home, homes.get(label, home))
    return homes


def _row(item: _Seen) -> dict[str, Any]:
    assert item.caption, "only usable files become assets"
    assert item.facts, "only usable files become assets"
    return {"sha256": item.sha256, **vars(item.caption), **vars(item.facts)}


def _prints(items: list[_Seen]) -> duplicates.Prints:
    facts = [item.facts for item in items if item.facts]
    columns = ([getattr(f, name) for f in facts] for name in PRINTS)
    return duplicates.prints_of(*columns)


def _prints_of(manifest: pa.Table) -> duplicates.Prints:
    return duplicates.prints_of(*(manifest[name].to_pylist() for name in PRINTS))
