"""The overview of a line: what comes from main, from branches and from the store; what is missing; what is forged."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cl_steps.errors import IntegrityError
from cl_steps.report.collect import DRIFT, SAMPLES, collect
from cl_steps.report.overview import Overview
from cl_steps.report.page import render
from cl_steps.repository.git import git
from cl_steps.repository.line import Line
from tests.report.fabricate import CHALK, OLD, RUNS, object_path


def test_events_records_reports_and_pictures_come_together(overview: Overview) -> None:
    assert (overview.line, overview.champion) == ("demo-line", "v3")
    assert [night.run for night in overview.nights] == list(RUNS)
    assert [night.outcome for night in overview.nights] == ["no_update", "promoted", "promoted", "held", "rejected"]
    assert [record["version"] for record in overview.versions] == ["v1", "v2", "v3"]
    chalk = overview.nights[2]
    assert chalk.figures("evaluate")["new_slices"] == [CHALK]
    assert {f"grid-{CHALK}-champion.png", "prompts.json"} <= chalk.pictures.samples.keys()
    assert set(chalk.pictures.drift) == {"plots.json", "evidently.html"}
    assert (overview.nights[3].answer or {})["answer"] == "no"
    assert not any(night.pictures.gone for night in overview.nights)


def test_without_pictures_the_store_is_not_touched(line: Line) -> None:
    overview = collect(Line(line.git, "/nowhere", "", ""))
    assert overview.nights[1].figures("gate")["checks"]
    assert not overview.nights[1].pictures.samples


def test_only_the_latest_nights_have_pictures(line: Line) -> None:
    shown = [bool(night.pictures.drift) for night in collect(line, nights_with_pictures=2).nights]
    assert shown == [False, False, False, True, True]


def test_importing_it_does_not_load_dvc() -> None:
    heavy = "{'dvc', 'torch', 'matplotlib'}"
    code = f"import sys, cl_steps.report.collect, cl_steps.report.table; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_pruned_run_keeps_what_its_version_recorded(line: Line, tmp_path: Path) -> None:
    remote = tmp_path / "git"
    git(None, "clone", "-q", "--bare", line.git, str(remote))
    for run in (RUNS[1], RUNS[4]):
        git(remote, "update-ref", "-d", f"refs/heads/runs/{run}")
    overview = collect(Line(str(remote), line.store, "", ""), nights_with_pictures=20)
    assert overview.nights[1].figures("gate")["checks"]
    assert overview.nights[1].pictures.samples
    assert overview.nights[4].verdict("gate") == "reject"
    assert not overview.nights[4].reports


def test_a_run_without_an_event_is_running(line: Line, tmp_path: Path) -> None:
    remote = tmp_path / "git"
    git(None, "clone", "-q", "--bare", line.git, str(remote))
    git(remote, "update-ref", "refs/heads/runs/2026-11-06-running", f"refs/heads/runs/{RUNS[0]}")
    last = collect(Line(str(remote), line.store, "", "")).nights[-1]
    assert (last.run, last.outcome) == ("2026-11-06-running", "running")


def test_pictures_that_are_gone_are_named_and_the_page_says_so(own_store: Line) -> None:
    for digest in _objects(own_store, RUNS[1], SAMPLES):
        object_path(Path(own_store.store), digest).unlink(missing_ok=True)
    overview = collect(own_store, nights_with_pictures=20)
    assert overview.nights[1].pictures.gone == (SAMPLES,)
    assert "no longer in the store" in render(_only(overview, RUNS[1]))


@pytest.mark.parametrize("folder", [SAMPLES, DRIFT])
@pytest.mark.parametrize("which", [0, -1], ids=["listing", "file"])
def test_a_tampered_object_is_an_integrity_error(own_store: Line, folder: str, which: int) -> None:
    digest = _objects(own_store, RUNS[1], folder)[which]
    path = object_path(Path(own_store.store), digest)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(IntegrityError, match="not what its name says"):
        collect(own_store, nights_with_pictures=20)


def test_a_branch_with_nonsense_does_not_break_the_page(line: Line, tmp_path: Path) -> None:
    remote, tree = tmp_path / "git", tmp_path / "tree"
    git(None, "clone", "-q", "--bare", line.git, str(remote))
    git(None, "clone", "-q", "--branch", f"runs/{RUNS[2]}", str(remote), str(tree))
    figures = {
        "slices": ["a"],
        "checks": {"a": 1},
        "batch": 3,
        "quarantine": [1, {"file": 2}],
        "new_slices": 4,
        "agreement": 0,
    }
    nonsense = {
        "ingest": json.dumps({"figures": figures, "verdict": ["ok"], "status": "done"}),
        "drift": json.dumps({"figures": {"slices": {"a": 1, "b": {"auc": "0"}}, "agreement": []}, "status": {}}),
        "update": "not json",
        "evaluate": json.dumps(
            {"figures": {"slices": {"a": {"loss": 1}, "b": 2}, "new_slices": [[]]}, "status": "done"}
        ),
        "gate": '{"figures": {"checks": [{"margin": NaN}, {"margin": 1}, 5]}}',
    }
    for name, content in nonsense.items():
        (tree / f"reports/{name}.json").write_text(content)
    (tree / "dvc.lock").write_bytes(b"stages: [1, 2]")
    (tree / "params.yaml").write_bytes(b"seed: {")
    git(tree, "commit", "-q", "-a", "-m", "nonsense")
    git(tree, "push", "-q", "origin", "HEAD")
    page = render(_only(collect(Line(str(remote), line.store, "", ""), nights_with_pictures=20), RUNS[2]))
    assert RUNS[2] in page


def _only(overview: Overview, run: str) -> Overview:
    return replace(overview, nights=tuple(night for night in overview.nights if night.run == run))


def _objects(line: Line, run: str, folder: str) -> list[str]:
    """The objects of an output that are shown: its listing, then its files."""
    lock = yaml.safe_load(git(Path(line.git), "show", f"runs/{run}:dvc.lock"))
    out = next(out for stage in lock["stages"].values() for out in stage["outs"] if out["path"] == folder)
    listing = json.loads(object_path(Path(line.store), out["md5"]).read_bytes())
    return [out["md5"], *(entry["md5"] for entry in listing if not entry["relpath"].endswith(".parquet"))]


def test_slices_of_the_base_are_known_to_the_first_version(overview: Overview) -> None:
    assert set(overview.versions[0]["slices"]) == set(OLD)
