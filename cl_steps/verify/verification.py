"""The verification of a line: everything that main says of its versions, and every byte that they are made of.

    main's history   append-only, states moved by versions and acts alone, tags where they belong   ledger
    signatures       of versions, their provenance and the acts of persons                          signed
    judges           what evaluate and gate found of a version, a judge signed                      judged
    new bases        none but those that a person asked for                                         rebases
    beginnings       every run began with a commit that main still has; no links are tracked        beginnings
    the store        every object read again; SHA-256 of adapter and base against the record        objects

Of a version's night the store must hold its pictures and figures, too: all that the record's stages name, which `retain
prune` never lets go of. What is missing of it is a fault, unless an event erased it.

One version is verified with the chain of its parents (their records and signatures, not their bytes) and the intakes
of its batch; all versions with main's own tree, every intake, and the quarantine counted again.
"""

from __future__ import annotations

from collections.abc import Iterator

from cl_steps.ledger.ancestors import walk as walk_ancestors
from cl_steps.ledger.champion import CHAMPION, parse_champion
from cl_steps.ledger.fold import Ledger
from cl_steps.ledger.names import existing
from cl_steps.pipeline import TONIGHT, next_state
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.store.objects import open_store
from cl_steps.store.pointers import lock_outs
from cl_steps.verify.append_only import check_history, check_intakes, check_numbers, check_tip, check_versions
from cl_steps.verify.authenticity import Trust
from cl_steps.verify.beginnings import check_beginnings, check_links
from cl_steps.verify.consistency import next_digests
from cl_steps.verify.evidence import Evidence, Version
from cl_steps.verify.findings import Finding, Verification
from cl_steps.verify.judged import check_judges
from cl_steps.verify.rebases import check_rebases
from cl_steps.verify.signers import check_signatures, read_events, vouched_ledger
from cl_steps.verify.stored import Root, Walk, check_files, check_quarantine, walk


def verify(line: Line, version: str | None, trust: Trust | None) -> Verification:
    """Verify one version (`champion`: main's), or all (None); without `trust` no signature is checked.

    Raises:
        UsageError: there is no such version.
        IntegrityError: the champion is asked for, and main names none.
        Unavailable: the Git remote or the store cannot be reached.
    """
    with reading(line.git) as main:
        book = Evidence.read(main, trust)
        chosen = list(book.versions.values()) if version is None else [_version(book, version)]
        events, findings = read_events(book)
        seen = check_signatures(book, events)
        ledger = vouched_ledger(events, seen)
        chain = chosen if version is None else _chain(book, chosen[0])
        records = {found.path for found in chain}
        findings += [f for path, found in seen.findings.items() if path in records or path in events for f in found]
        findings += [*check_history(book), *check_numbers(book), *check_versions(book, chain)]
        findings += [*check_rebases(book, ledger, chain), *check_judges(trust, chain)]
        if version is None:
            findings += [*check_tip(book), *check_links(book), *check_beginnings(book)]
    runs = _runs(book, ledger) if version is None else _batch(chosen[0])
    findings += check_intakes(book, ledger, runs)
    with open_store(line.store) as store:
        store.refuse_empty()
        read = walk(store, _roots(book, chosen, runs, everything=version is None), ledger)
    findings += read.findings
    findings += [f for found in chosen if found.record for f in check_files(read, found.name, found.record)]
    if version is None:
        findings += _recount(book, ledger, read)
    num_objects = len(read.held)
    return Verification([found.name for found in chosen], findings, num_objects, read.num_bytes, trust is not None)


def _version(book: Evidence, name: str) -> Version:
    if name == "champion":
        name = parse_champion(book.files.get(CHAMPION, b"")).version
    versions = {version.name: version for version in book.versions.values()}
    return versions[existing(name, versions)]


def _chain(book: Evidence, version: Version) -> list[Version]:
    """The version and its ancestors, the oldest first."""
    parents = {each.name: _parent(each) for each in book.versions.values()}
    return [book.versions[int(name[1:])] for name in walk_ancestors(parents, version.name)][::-1]


def _parent(version: Version) -> str | None:
    """The parent that a record names; None where that is no version before it."""
    parent = version.record.parent if version.record else None
    return parent if parent and int(parent[1:]) < version.number else None


def _batch(version: Version) -> list[str]:
    """The runs whose intakes the version learnt."""
    return list(version.record.members) if version.record else []


def _runs(book: Evidence, ledger: Ledger) -> list[str]:
    """Every run that main knows or keeps an intake of."""
    kept = {path.removeprefix("data/").removesuffix(".dvc") for path in book.below("data", ".dvc")}
    return sorted(kept | set(ledger.runs))


def _roots(book: Evidence, versions: list[Version], runs: list[str], *, everything: bool) -> Iterator[Root]:
    for version in versions:
        if version.record:
            for part, md5 in sorted(next_digests(version.record).items()):
                yield Root(f"{version.name} {part}", md5)
    for run in runs:
        if taken := book.tracked(f"data/{run}.dvc"):
            yield Root(f"data/{run}", taken)
    for path in book.below("state", ".dvc") if everything else ():
        if named := book.tracked(path):
            yield Root(path.removesuffix(".dvc"), named)
    for version in versions:
        yield from _night(version)


def _night(version: Version) -> Iterator[Root]:
    """What else the version's run stored: intake and batch, drift's figures, the pictures of the evaluation."""
    if version.record is None:
        return
    made = next_state(version.record.rebase is not None).values()
    for path, out in sorted(lock_outs(version.record.stages).items()):
        if path.startswith(TONIGHT) and path not in made:
            yield Root(f"{version.name} {path}", str(out["md5"]))


def _recount(book: Evidence, ledger: Ledger, read: Walk) -> Iterator[Finding]:
    """Intakes that a withdrawal replaced are left out: their event counts what came in."""
    for run, event in ledger.runs.items():
        md5 = book.tracked(f"data/{run}.dvc")
        if md5 and event.intake and md5 == event.intake.md5:
            yield from check_quarantine(read, run, md5, event.intake.quarantined)
