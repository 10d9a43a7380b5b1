"""The ingest step on real workspaces' folders: intake, batch, ledger, reports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cl_steps.config import Ingest, Params, RunSpec
from cl_steps.data.shards import content_digest, read_assets, read_manifest, write_table
from cl_steps.documents import json_text
from cl_steps.errors import NoUsableData, Unavailable, UsageError
from cl_steps.run.context import Context, StepReport
from cl_steps.steps import ingest
from tests.data.landings import encoded, fill, jsonl, picture, put
from tests.lasting import whole_event

PARAMS = Params(ingest=Ingest(min_new_assets=10))


def night(root: Path, run: str = "night-1", **spec: Any) -> StepReport:
    report = ingest.run(Context(root, PARAMS, RunSpec(id=run, **spec)))
    json_text(report.figures)
    return report


def close(root: Path, report: StepReport, run: str, outcome: str = "no_update") -> None:
    """What the trusted close does: keep the intake, write the event."""
    shutil.copytree(root / "tonight/intake", root / "data" / run)
    figures = report.figures
    remembered = figures["quarantine_keys"]
    intake = {"md5": "0" * 32, "assets": figures["intake"]["assets"], "quarantine_keys": remembered, "quarantined": 0}
    event(root, run, {"kind": "run", "outcome": outcome, "intake": intake, "batch": figures["batch"]})


def event(root: Path, run: str, values: Mapping[str, Any]) -> None:
    folder = root / "events"
    folder.mkdir(exist_ok=True)
    name = f"{len(list(folder.iterdir())):03d}.json"
    (folder / name).write_text(json.dumps(whole_event({"schema": 1, "run": run, "version": "v2", **values})))


def approve(root: Path, run: str, digest: str) -> None:
    event(root, run, {"kind": "answer", "digest": digest, "answer": "yes", "by": "ada", "reason": "looks right"})


def test_a_night_with_enough(tmp_path: Path) -> None:
    fill(tmp_path / "landing", range(12))
    put(tmp_path / "landing", "junk.png", b"junk")
    report = night(tmp_path)
    assert report.verdict == "ok"
    figures = report.figures
    assert (figures["new"], figures["quarantined"], figures["known"]) == (12, 1, 0)
    assert figures["quarantine"][0]["code"] == "no_caption"
    assert figures["intake"] == {"assets": 12, "slices": {"ink": 12}}
    batch = read_manifest(tmp_path / "tonight/batch")
    assert figures["batch"]["runs"] == ["night-1"]
    assert figures["batch"]["digest"] == content_digest(batch)
    assert sum(figures["batch"]["slices"]["ink"].values()) == figures["batch"]["assets"] == 12
    assert min(figures["batch"]["slices"]["ink"].values()) >= 1
    assert figures["approved"] is None
    assert [a.sha256 for a in read_assets(tmp_path / "tonight/batch")] == batch["sha256"].to_pylist()


def test_pending_intakes_join_the_batch_byte_for_byte(tmp_path: Path) -> None:
    fill(tmp_path / "landing", range(6))
    first = night(tmp_path)
    assert first.verdict == "too_few"
    close(tmp_path, first, "night-1")
    fill(tmp_path / "landing", range(6, 12))
    second = night(tmp_path, "night-2")
    assert (second.verdict, second.figures["new"], second.figures["known"]) == ("ok", 6, 6)
    assert second.figures["batch"]["runs"] == ["night-1", "night-2"]
    assert second.figures["batch"]["assets"] == 12
    stored, copied = (
        tmp_path / "data/night-1/shard-00000.parquet",
        tmp_path / "tonight/batch/night-1/shard-00000.parquet",
    )
    assert stored.read_bytes() == copied.read_bytes()
    assert len(read_assets(tmp_path / "tonight/batch")) == 12


@pytest.mark.parametrize(("outcome", "waiting"), [("promoted", 0), ("held", 0), ("no_update", 12), ("rejected", 12)])
def test_what_a_run_became_decides_whether_it_waits(tmp_path: Path, outcome: str, waiting: int) -> None:
    fill(tmp_path / "landing", range(12))
    close(tmp_path, night(tmp_path), "night-1", outcome)
    if outcome in ("promoted", "held"):
        for shard in (tmp_path / "data/night-1").glob("shard-*"):
            shard.unlink()
    report = night(tmp_path, "night-2")
    assert (report.figures["known"], report.figures["new"]) == (12, 0)
    assert report.figures["batch"]["assets"] == waiting
    assert report.verdict == ("ok" if waiting else "too_few")


def test_assets_of_the_champion_are_known(tmp_path: Path) -> None:
    fill(tmp_path / "landing", range(12))
    night(tmp_path)
    (tmp_path / "state/reference").mkdir(parents=True)
    write_table(tmp_path / "state/reference/known.parquet", read_manifest(tmp_path / "tonight/intake"))
    report = night(tmp_path, "night-2")
    assert (report.figures["known"], report.figures["new"]) == (12, 0)


def test_an_approved_batch_is_run_again_without_the_landing(tmp_path: Path) -> None:
    fill(tmp_path / "landing", range(12))
    first = night(tmp_path)
    close(tmp_path, first, "night-1", "held")
    approve(tmp_path, "night-1", first.figures["batch"]["digest"])
    shutil.rmtree(tmp_path / "landing")
    report = night(tmp_path, "night-2", batch="night-1")
    assert report.verdict == "ok"
    assert report.figures["batch"] == first.figures["batch"]
    assert report.figures["approved"] == {"by": "ada", "reason": "looks right", "run": "night-1"}
    assert report.figures["new"] == 0
    assert read_manifest(tmp_path / "tonight/intake").num_rows == 0
    assert (tmp_path / "tonight/intake/quarantine.jsonl").read_text() == ""


def test_an_answer_to_another_batch_does_not_count(tmp_path: Path) -> None:
    fill(tmp_path / "landing", range(12))
    close(tmp_path, night(tmp_path), "night-1", "held")
    approve(tmp_path, "night-1", "0" * 64)
    assert night(tmp_path, "night-2", batch="night-1").figures["approved"] is None


def test_a_run_tried_again_does_not_change_its_intake(tmp_path: Path) -> None:
    fill(tmp_path / "landing", range(12))
    close(tmp_path, night(tmp_path), "night-1", "failed")
    fill(tmp_path / "landing", range(12, 20))
    report = night(tmp_path, "night-1")
    assert (report.figures["new"], report.figures["batch"]["assets"]) == (0, 12)


def test_nothing_landed_and_nothing_waits(tmp_path: Path) -> None:
    (tmp_path / "landing").mkdir()
    report = night(tmp_path)
    assert (report.verdict, report.figures["batch"]["assets"]) == ("too_few", 0)
    assert read_assets(tmp_path / "tonight/batch") == []


def test_all_that_arrived_was_unusable(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / "landing", f"{number}.png", b"junk")
        jsonl(tmp_path / "landing", {"file_name": f"{number}.png", "text": "x"})
    report = night(tmp_path)
    assert report.verdict == "too_few"
    assert "3 files or lines were quarantined" in report.why
    assert len((tmp_path / "tonight/intake/quarantine.jsonl").read_text().splitlines()) == 3


def test_what_stays_in_the_landing_is_no_news(tmp_path: Path) -> None:
    fill(tmp_path / "landing", range(12))
    put(tmp_path / "landing", "junk.png", b"junk")
    first = night(tmp_path)
    close(tmp_path, first, "night-1")
    put(tmp_path / "landing", "more.png", b"more junk")
    again = night(tmp_path, "night-2").figures
    assert (first.figures["quarantined"], first.figures["quarantined_before"]) == (1, 0)
    assert (again["quarantined"], again["quarantined_before"]) == (2, 1)


def test_however_much_stays_in_the_landing_is_no_news_some_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "NUM_REMEMBERED", 3)
    for number in range(5):
        put(tmp_path / "landing", f"{number}.png", b"junk")
    jsonl(tmp_path / "landing", "{bad")
    seen = []
    for number in range(3):
        report = night(tmp_path, f"night-{number}")
        close(tmp_path, report, f"night-{number}")
        seen.append((report.figures["unusable"], report.figures["quarantined_before"]))
    assert sum(unusable for unusable, _ in seen) >= 5
    assert seen[2] == (0, 6)
    assert seen[0] == (5, 0)


def test_what_is_left_for_another_night_is_said(tmp_path: Path) -> None:
    fill(tmp_path / "landing", range(20))
    limits = PARAMS.ingest.model_copy(update={"max_files": 9})
    context = Context(tmp_path, PARAMS.model_copy(update={"ingest": limits}), RunSpec(id="night-1"))
    report = ingest.run(context)
    assert "12 files more than ingest.max_files: left for another night" in report.why
    figures = report.figures["landing"]
    assert (figures["arrived"], figures["left"], figures["metadata"]) == (21, {"files": 12}, 1)


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoUsableData, match="landing"):
        night(tmp_path)
    fill(tmp_path / "landing", range(2))
    close(tmp_path, night(tmp_path), "night-1")
    shutil.rmtree(tmp_path / "data/night-1")
    with pytest.raises(Unavailable, match="dvc pull data/night-1"):
        night(tmp_path, "night-2")
    with pytest.raises(UsageError, match="nobody"):
        night(tmp_path, "night-2", batch="nobody")


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        fill(tmp_path / name / "landing", range(12))
        put(tmp_path / name / "landing", "x.jpg", encoded(picture(3), "JPEG"))
        report = night(tmp_path / name)
        tonight = tmp_path / name / "tonight"
        files = {str(p.relative_to(tonight)): p.read_bytes() for p in tonight.rglob("*") if p.is_file()}
        found.append((report, files))
    assert found[0] == found[1]


def test_ingest_does_not_import_torch() -> None:
    heavy = "('torch', 'sklearn', 'dvc', 'pandas')"
    code = f"import sys, cl_steps.steps.ingest; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_rebase_takes_nothing_in_and_leaves_what_waits(tmp_path: Path) -> None:
    fill(tmp_path / "landing", range(12))
    close(tmp_path, night(tmp_path), "night-1")
    held = night(tmp_path, "rebase-1", rebase="0" * 32 + ".dir")
    event(tmp_path, "rebase-1", {"kind": "run", "outcome": "held", "intake": None, "batch": held.figures["batch"]})
    approve(tmp_path, "rebase-1", held.figures["batch"]["digest"])
    fill(tmp_path / "landing", range(20, 32))
    report = night(tmp_path, "rebase-2", rebase="0" * 32 + ".dir")
    assert (report.verdict, report.figures["approved"]) == ("ok", None)
    assert report.figures["intake"] == {"assets": 0, "slices": {}}
    assert (report.figures["batch"]["runs"], report.figures["batch"]["assets"]) == ([], 0)
    assert not read_assets(tmp_path / "tonight/batch")
    assert night(tmp_path, "night-2").figures["batch"]["runs"] == ["night-1", "night-2"]


def test_texts_and_archives_beside_good_pictures_are_nothing_unusable(tmp_path: Path) -> None:
    fill(tmp_path / "landing", range(12))
    for number in range(12):
        put(tmp_path / "landing", f"{number:03d}.txt", b"an old caption")
    for name in ("README.md", "images.zip", "sub/metadata.csv", "Thumbs.db"):
        put(tmp_path / "landing", name, b"junk")
    report = night(tmp_path)
    assert (report.verdict, report.figures["new"], report.figures["unusable"]) == ("ok", 12, 0)
    assert "passed over 1 archives: unpack them" in report.why
    assert report.figures["landing"]["passed"] == {"archives": 1, "others": 1, "texts": 1}
