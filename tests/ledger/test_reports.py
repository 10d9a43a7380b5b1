"""Reports as whoever reads a run's branch finds them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cl_steps.documents import JSON_BYTES
from cl_steps.errors import IntegrityError
from cl_steps.ledger.reports import read_reports, read_small
from tests.ledger.test_schemas import DOCUMENTS

GATE = DOCUMENTS["report-1"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "reports").mkdir()
    return tmp_path


def put(root: Path, name: str, document: object) -> None:
    (root / "reports" / name).write_text(json.dumps(document), encoding="utf-8")


def test_reports_are_those_of_the_steps_that_ran_or_were_skipped(root: Path) -> None:
    put(root, "gate.json", GATE)
    put(root, "update.json", {**GATE, "step": "update", "status": "skipped"})
    put(root, "times.json", {})
    assert {name: report.done for name, report in read_reports(root).items()} == {"update": False, "gate": True}


def test_a_report_is_its_own_steps(root: Path) -> None:
    put(root, "drift.json", GATE)
    with pytest.raises(IntegrityError, match=r"reports/drift\.json does not say what a report of drift says"):
        read_reports(root)


def test_a_document_is_read_up_to_the_bound_and_no_further(root: Path) -> None:
    path = root / "reports/x.json"
    path.write_bytes(b"1".ljust(JSON_BYTES))
    assert read_small(path) == 1
    path.write_bytes(b"1".ljust(JSON_BYTES + 1))
    with pytest.raises(IntegrityError, match=r"reports/x\.json cannot be read"):
        read_small(path)
