"""A night on a line of many versions: what a step fetches and reads does not grow with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cl_steps.pipeline import DRIFT
from cl_steps.repository.git import git, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline, reading
from cl_steps.run.stage import checked_out, run_stage
from tests.benchmarks.long_line import RECORD_BYTES, long_line
from tests.lasting import documents
from tests.lines.cheap import put_run
from tests.lines.small import fake_stage

VERSIONS = 12


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cl_steps.steps.promote._check_figures", None)
        line = long_line(tmp_path_factory.mktemp("long") / "line", VERSIONS)
    put_run(line, "begun", {"ingest": "ok"})
    return line


def kept_bytes(repo: Path) -> int:
    return sum(path.stat().st_size for path in repo.rglob("*.pack"))


def fetched_records(main: Mainline) -> int:
    """How many of the records are in the clone already."""
    lines = text(main.folder, "rev-list", "--objects", "--missing=print", "--no-walk", main.tip).splitlines()
    left = {line[1:] for line in lines if line.startswith("?")}
    return sum(blob not in left for name, blob in main.blobs("versions").items() if name > "v0002.json")


def test_a_step_leaves_records_and_ledger_where_they_are(line: Line) -> None:
    with checked_out(line, "begun") as root:
        assert not any((root / name).exists() for name in ("versions", "events", "data"))
        assert (root / "state" / "base.dvc").is_file()
        assert "events/" in text(root, "ls-files", "events")
    with checked_out(line, "begun", ledger=True) as root:
        assert not (root / "versions").exists()
        assert len(list((root / "events").glob("*.json"))) == VERSIONS - 1
        assert len(list((root / "data").glob("*.dvc"))) == VERSIONS - 1
        assert kept_bytes(root) < RECORD_BYTES
        assert "versions/v0007.json" in text(root, "ls-files", "versions")


def test_main_is_read_without_records_until_they_are_asked_for_and_then_at_once(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading(line.git) as main:
        assert len(main.ledger().runs) == VERSIONS - 1
        assert max(main.numbers()) == VERSIONS
        assert fetched_records(main) == 0
        packs = len(list(main.folder.rglob("*.pack")))
        assert [record["version"] for record in documents(main)] == [f"v{n}" for n in range(1, VERSIONS + 1)]
        assert len(list(main.folder.rglob("*.pack"))) == packs + 1
        commit = main.version_commit("v5")
        assert [record["version"] for record in documents(main.at(commit))] == [f"v{n}" for n in range(1, 6)]


def test_a_server_that_takes_no_filters_sends_everything(line: Line) -> None:
    git(Path(line.git), "config", "uploadpack.allowFilter", "false")
    try:
        with reading(line.git) as main, checked_out(line, "begun") as root:
            assert fetched_records(main) == VERSIONS - 2
            assert len(documents(main)) == VERSIONS
            assert not (root / "versions").exists()
    finally:
        git(Path(line.git), "config", "uploadpack.allowFilter", "true")


def test_a_step_reads_no_dvc_file_but_those_it_was_told_of(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC's own index reads each one, and a line gets one with every intake: 2 seconds a stage after 1,000."""
    from dvc.repo import Repo

    monkeypatch.setattr(Repo, "index", property(lambda repo: pytest.fail("the index was asked for")))
    assert run_stage(line, "begun", DRIFT, fake_stage(DRIFT, "drifted")).verdict == "drifted"
