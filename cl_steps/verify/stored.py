"""The store's side of a verification: every object of a version read again, each once whatever it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cl_steps.errors import IntegrityError
from cl_steps.ledger.fold import Ledger
from cl_steps.ledger.record import Record
from cl_steps.store.digests import FOLDER, Digests, Listing, read_listing
from cl_steps.store.objects import Store
from cl_steps.verify.findings import Finding, listed

QUARANTINE = "quarantine.jsonl"


@dataclass(frozen=True)
class Root:
    """A stored folder or file that something names: where it belongs (`v3 adapter`, `data/r-1`), and its md5."""

    where: str
    md5: str


@dataclass(frozen=True)
class Walk:
    """What was read: objects by name, and what folders list: md5 by path, by the folder's name."""

    held: Mapping[str, Digests | None]
    listings: Mapping[str, Listing]
    findings: list[Finding] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        """Read in all."""
        return sum(found.num_bytes for found in self.held.values() if found)

    def whole(self, name: str) -> Digests | None:
        """An object that is what its name says; None where it is not, or not there."""
        found = self.held.get(name)
        return found if found and found.md5 == name.removesuffix(FOLDER) else None


def walk(store: Store, roots: Iterable[Root], ledger: Ledger) -> Walk:
    """Read everything that those roots are made of, and what stands for it since a withdrawal; raises Unavailable."""
    chosen = list(dict.fromkeys(found for root in roots for found in _with_standing(root, ledger)))
    folders = {root.md5 for root in chosen if root.md5.endswith(FOLDER)}
    tops = store.digests({root.md5 for root in chosen}, keep=folders)
    top = Walk(tops, {})
    listings = {name: found for name in folders if (found := _listing(name, top.whole(name))) is not None}
    members = {md5 for listing in listings.values() for md5 in listing.values()}
    kept = {md5 for listing in listings.values() for path, md5 in listing.items() if path == QUARANTINE}
    read = Walk({**store.digests(members, keep=kept), **tops}, listings)
    read.findings.extend(_findings(read, chosen, folders, ledger))
    return read


def check_files(read: Walk, version: str, record: Record) -> Iterator[Finding]:
    """Adapter and base hold the files that the record names, with its SHA-256 of each."""
    files = record.files
    named = {"adapter": record.digests.state["adapter"], "base": record.digests.base}
    for part, md5 in named.items():
        expected = {path: digest for path, digest in files.items() if path.startswith(f"{part}/")}
        listing = {f"{part}/{path}": name for path, name in read.listings.get(md5, {}).items()}
        if not expected or md5 not in read.listings:
            continue
        for path in sorted(expected.keys() ^ listing.keys()):
            yield Finding("inconsistent", f"{version} {path}", "record and store do not both name this file")
        for path in sorted(expected.keys() & listing.keys()):
            found = read.whole(listing[path])
            if found and found.sha256 != expected[path]:
                yield Finding("inconsistent", f"{version} {path}", "its SHA-256 is not the record's")


def check_quarantine(read: Walk, run: str, md5: str, counted: int) -> Iterator[Finding]:
    """A stored intake holds as many rows of quarantine as its event says."""
    name = read.listings.get(md5, {}).get(QUARANTINE)
    found = read.whole(name) if name else None
    if name and not found:
        return
    rows = sum(bool(line.strip()) for line in found.content.splitlines()) if found else 0
    if rows != counted and md5 in read.listings:
        why = f"it has {rows} rows, and the run's event says {counted}"
        yield Finding("inconsistent", f"data/{run}/{QUARANTINE}", why)


def _with_standing(root: Root, ledger: Ledger) -> Iterator[Root]:
    yield root
    standing = str(ledger.standing(root.md5)["md5"])
    if standing != root.md5:
        yield Root(f"{root.where} (as it is since a withdrawal)", standing)


def _listing(name: str, folder: Digests | None) -> Listing | None:
    """What a folder's object lists; None where it is no such list."""
    try:
        return read_listing(folder.content, name) if folder else None
    except IntegrityError:
        return None


def _findings(read: Walk, roots: list[Root], folders: Iterable[str], ledger: Ledger) -> Iterator[Finding]:
    places: dict[str, list[str]] = {}
    for root in roots:
        places.setdefault(root.md5, []).append(root.where)
        for path, md5 in read.listings.get(root.md5, {}).items():
            places.setdefault(md5, []).append(_below(root, path))
    for name, where in places.items():
        fault = _fault(read, name, ledger)
        if fault:
            first, others = listed(where)
            yield Finding(fault.kind, first, f"{fault.why}{others}", fault.fault)
    for name in sorted(set(folders) - read.listings.keys()):
        if read.whole(name):
            yield Finding("corrupt", places[name][0], f"object {name} is no list of files")


def _below(root: Root, path: str) -> str:
    """A file of a version's part: `v3 adapter/weights.safetensors`."""
    place, _, more = root.where.partition(" (")
    return f"{place}/{path}{f' ({more}' if more else ''}"


def _fault(read: Walk, name: str, ledger: Ledger) -> Finding | None:
    if read.whole(name):
        return None
    if read.held[name] is None and name in ledger.erased:
        return Finding("erased", "", f"object {name} was erased by {ledger.erased[name]}", fault=False)
    if read.held[name] is None:
        return Finding("missing", "", f"object {name} is not on the store")
    return Finding("corrupt", "", f"the bytes of object {name} are not what its name says")
