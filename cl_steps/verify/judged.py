"""Whether a version rests on what a judge signed: the statements in its record, against the record itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cl_steps.digests import sha256
from cl_steps.documents import json_text
from cl_steps.ledger.record import Record
from cl_steps.pipeline import STAGES
from cl_steps.verify.authenticity import Doubt, Trust
from cl_steps.verify.evidence import Version
from cl_steps.verify.findings import Finding
from cl_steps.verify.judging import IN_FULL, compare_statement, found_in

FIRST = 3
"""The schema of a record from which on it holds what its judges signed."""


def check_judges(trust: Trust | None, versions: list[Version]) -> Iterator[Finding]:
    """What evaluate and gate found of each version was signed by a judge who counted when it was promoted."""
    for version in versions:
        record = version.record
        if trust and record and record.shape >= FIRST and record.parent is not None:
            for step in STAGES:
                if step.judges and (doubt := doubt_of(trust, record, step.name)):
                    yield _finding(trust, record, version.name, step.name, doubt)


def _finding(trust: Trust, record: Record, version: str, step: str, doubt: Doubt) -> Finding:
    where, unsigned = f"{version} {step}", not record.judged.get(step)
    if (unsigned or doubt.kind == "untrusted") and datetime.fromisoformat(record.created) < trust.judges_since:
        return Finding("unsigned", where, "it was judged before the first trusted key of a judge", fault=False)
    return Finding(doubt.kind, where, str(doubt))


def doubt_of(trust: Trust, record: Record, step: str) -> Doubt | None:
    """Why what a record's judges signed of a step does not count; None where it does."""
    reports = {name: sha256(json_text(report).encode()) for name, report in record.reports.items()}
    assert record.begun, "its format asks for it"
    found = found_in(record.stages, reports, record.begun.commit, step)
    try:
        signature = record.judged.get(step, "").encode()
        statement = trust.statement(signature, datetime.fromisoformat(record.created), "judge")
        compare_statement(statement, found, IN_FULL.get(step, ()))
    except Doubt as doubt:
        return doubt
    return None
