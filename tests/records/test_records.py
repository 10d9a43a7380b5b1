"""Records, events and reports have the shapes that the package ships, old ones too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cl_steps.documents import json_text
from cl_steps.errors import IntegrityError
from cl_steps.ledger.record import RECORD_SCHEMA
from cl_steps.ledger.record import Record as Version
from cl_steps.ledger.reports import REPORT_SCHEMA, read_reports
from cl_steps.ledger.schemas import FOLDER, event_fault, record_fault, schemas
from cl_steps.records.builders import files_of
from cl_steps.repository.git import clone, git, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import branch_of, read_run
from cl_steps.run.context import StepReport, write_report
from cl_steps.steps import promote
from cl_steps.verify.consistency import next_digests
from tests.lasting import documents, report_fault
from tests.lines.small import GOOD, play
from tests.lines.tampering import line_about_to_learn, line_of_three

Record = dict[str, Any]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return line_of_three(tmp_path_factory.mktemp("lines") / "line")


@pytest.fixture
def record(line: Line) -> Record:
    with reading(line.git) as main:
        return documents(main)[1]


def test_what_is_written_has_the_shapes(line: Line) -> None:
    with reading(line.git) as main:
        records = documents(main)
        events = [json.loads(c) for name, c in main.folder_files("events").items() if name.endswith(".json")]
        reports = [json.loads(content) for content in main.folder_files("reports").values()]
    assert [record_fault(record) for record in records] == [None] * 3
    assert {record["schema"] for record in records} == {RECORD_SCHEMA}
    assert {event["kind"] for event in events} == {"run", "answer"}
    assert [event_fault(event) for event in events] == [None] * len(events)
    assert len(reports) == 5
    assert [report_fault(report) for report in reports] == [None] * 5


def test_records_of_before_have_their_shape(line: Line) -> None:
    with reading(line.git) as main:
        for record in documents(main):
            old = {key: value for key, value in record.items() if key not in ("files", "main", "times", "gpu_seconds")}
            assert record_fault({**old, "schema": 1}) is None
            assert record_fault({**old, "schema": 2}) is not None


AT = {"at": "2026-11-23T02:00:00+00:00", "by": "ops (claimed)", "through": "airflow", "schema": 2}
ASSET = {"sha256": "0" * 64, "dhash": "0" * 16, "thumbnail": "AA=="}
ACTS: list[Record] = [
    {
        "kind": "rollback",
        "reason": "worse",
        "version": "v6",
        "from": "v8",
        "lineage": ["v1", "v6"],
        "left": ["v7", "v8"],
        "relearn": False,
    },
    {
        "kind": "withdrawal",
        "reason": "asked",
        "assets": [ASSET],
        "source": None,
        "erase": True,
        "touched": {},
        "replaced": {f"{'a' * 32}.dir": {"md5": f"{'b' * 32}.dir", "size": 1, "nfiles": 1}},
        "erased": ["c" * 32],
    },
    {"kind": "prune", "runs": {"r-1": "f" * 40}},
    {"kind": "migration", "from": 1, "to": 2},
]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act["kind"])
def test_an_act_lacks_nothing(act: Record) -> None:
    event = {**AT, "id": "x", **act}
    assert event_fault(event) is None
    for key in event.keys() - {"by", "through"}:
        assert event_fault({name: value for name, value in event.items() if name != key})
    assert "at" in (event_fault({**event, "at": "2026-02-30T00:00:00+00:00"}) or "")
    assert "at" in (event_fault({**event, "at": "2026-02-03T00:00:00"}) or "")
    assert event_fault({**event, "kind": "../record-1"})


REPORT: Record = {
    "schema": 1, "step": "gate", "run": "r-1", "status": "done", "code": "0" * 64, "verdict": "promote", "why": "",
    "figures": {},
}  # fmt: skip
WRONG: tuple[Any, ...] = (
    None,
    True,
    1,
    1.0,
    2,
    "",
    "x",
    "0" * 64,
    "0" * 65,
    "0" * 64 + "\n",
    [],
    {},
    "skipped",
    "update",
)


@pytest.mark.parametrize("key", REPORT)
def test_a_report_is_read_by_the_shape_that_verify_asks_for(key: str, tmp_path: Path) -> None:
    """Whoever reads one finds what verify finds, and what jsonschema finds; only a number is a whole one as written."""
    from jsonschema import Draft202012Validator

    shape = json.loads((FOLDER / f"report-{REPORT_SCHEMA}.json").read_text(encoding="utf-8"))
    # In JSON Schema `$` is the end; in Python it is the end of a last line, too.
    shape["properties"]["code"]["pattern"] = shape["properties"]["code"]["pattern"].replace("$", r"\Z")
    shipped = Draft202012Validator(shape)
    assert shipped.is_valid(REPORT)
    without = {name: value for name, value in REPORT.items() if name != key}
    for document in ({**REPORT, key: value} for value in WRONG if value != 1.0 or isinstance(value, int)):
        assert shipped.is_valid(document) == (report_fault(document) is None), document
        assert is_read(tmp_path, document) == (report_fault(document) is None and document["step"] == "gate"), document
    assert not shipped.is_valid(without)
    assert report_fault(without)


def is_read(folder: Path, document: Any) -> bool:
    (folder / "reports").mkdir(exist_ok=True)
    (folder / "reports/gate.json").write_text(json.dumps(document), encoding="utf-8")
    try:
        return bool(read_reports(folder))
    except IntegrityError:
        return False


def test_reports_are_read_without_the_library_that_verifies_them(tmp_path: Path) -> None:
    write_report(tmp_path, "gate", "r-1", StepReport("promote", "as good"))
    code = "import sys; from cl_steps.run.context import read_reports; from pathlib import Path; "
    code += f"print(len(read_reports(Path({str(tmp_path)!r}))), 'jsonschema' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1", "False"]


@pytest.mark.parametrize("document", [None, [], {}, "x", {"schema": 99}, {"schema": [], "kind": {}}])
def test_what_is_nothing_of_ours(document: Any) -> None:
    assert record_fault(document)
    assert event_fault(document)
    assert report_fault(document)


def test_every_shape_is_a_schema_and_named_by_its_file() -> None:
    from jsonschema import Draft202012Validator

    for name in schemas():
        schema = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(schema)
        assert schema["$id"] == f"urn:retain:schema:{name}"


def test_a_record_names_every_file_and_what_came_before(line: Line, record: Record, tmp_path: Path) -> None:
    with reading(line.git) as main:
        first, commit = documents(main)[0], main.version_commit("v2")
        assert record["main"] == text(main.folder, "rev-parse", f"{commit}^")
    assert set(record["files"]) == {"adapter/bytes", "base/bytes"}
    assert record["files"]["base/bytes"] == first["files"]["base/bytes"]
    assert record["files"]["adapter/bytes"] != first["files"]["adapter/bytes"]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/x").write_bytes(b"")
    assert files_of(tmp_path, "n") == {"n/deep/x": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}


def test_a_run_whose_branch_says_another_teacher_is_not_promoted(tmp_path: Path) -> None:
    """Whoever runs a step may write its branch, and the teacher that it names there is not the champion's."""
    line = line_about_to_learn(tmp_path / "line")
    play(line, "r-300", GOOD)
    clone(line.git, tmp_path / "pusher", branch_of("r-300"))
    lock = tmp_path / "pusher/dvc.lock"
    teacher = next_digests(Version.from_document(_champion(line)))["adapter"]
    lock.write_text(lock.read_text(encoding="utf-8").replace(teacher, f"{'0' * 32}.dir"), encoding="utf-8")
    git(tmp_path / "pusher", "commit", "-q", "-am", "forge")
    git(tmp_path / "pusher", "push", "-q", line.git, f"HEAD:{branch_of('r-300')}")
    assert "0" * 32 in json_text(read_run(line, "r-300").lock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promote, "_check_figures", lambda *_: None)
        with pytest.raises(IntegrityError, match="state/adapter"):
            promote.run(line, "r-300")
    assert _champion(line)["version"] == "v3"


def _champion(line: Line) -> Record:
    with reading(line.git) as main:
        return documents(main)[-1]
