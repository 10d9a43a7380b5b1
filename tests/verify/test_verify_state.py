"""A model that is not what main says, or that nobody signed who counts, is never loaded: to train, or to export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cl_steps.config import RunSpec
from cl_steps.documents import json_text
from cl_steps.errors import IntegrityError
from cl_steps.operations import play as commands
from cl_steps.operations.models import fetched
from cl_steps.pipeline import DRIFT, INGEST, UPDATE
from cl_steps.records.keys import TRUSTED, make_keys
from cl_steps.repository.git import clone, git
from cl_steps.repository.line import Line
from cl_steps.repository.run_branch import branch_of, open_run
from cl_steps.run.context import Context, StepReport
from cl_steps.run.stage import run_stage
from cl_steps.verify.before_loading import check_state
from tests.lasting import whole_champion
from tests.lines.small import fake_stage
from tests.lines.tampering import add_version, commit, line_about_to_learn, on_main, overwrite, rewrite, stored

RUN = "r-300"


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_about_to_learn(tmp_path / "line")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the steps that really ran."""
    ran: list[str] = []

    def load(chosen: object) -> object:
        def run(context: Context) -> StepReport:
            ran.append(context.run.id)
            return fake_stage(chosen, None)(context)  # type: ignore[arg-type]

        return run

    monkeypatch.setattr(commands, "load", load)
    return ran


def push(line: Line, folder: Path, files: dict[str, bytes]) -> None:
    """What somebody with the credentials of a step can do: write the run's branch."""
    clone(line.git, folder, branch_of(RUN))
    for path, content in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", "push")
    git(folder, "push", "-q", line.git, f"HEAD:{branch_of(RUN)}")


def refused_of(line: Line, folder: Path, files: dict[str, bytes], words: str) -> None:
    """With these files in the run's checkout, wherever they come from."""
    clone(line.git, folder, branch_of(RUN))
    for path, content in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    with pytest.raises(IntegrityError, match=words):
        check_state(line, folder, UPDATE)


def refused(line: Line, trained: list[str], words: str) -> None:
    with pytest.raises(IntegrityError, match=words) as raised:
        commands.run_step(line, RUN, "update")
    assert trained == []
    assert "\n" not in str(raised.value)


def test_a_model_that_is_right_is_learnt_from(line: Line, trained: list[str]) -> None:
    commands.run_step(line, RUN, "update")
    assert trained == [RUN]


@pytest.mark.parametrize("part", ["adapter", "base"])
def test_an_object_of_the_store_was_changed(part: str, line: Line, trained: list[str]) -> None:
    overwrite(stored(line, f"state/{part}.dvc", "bytes"), b"tampered")
    refused(line, trained, f"state/{part}")


@pytest.mark.parametrize("part", ["adapter", "base"])
def test_the_run_s_branch_names_another_model(part: str, line: Line, trained: list[str], tmp_path: Path) -> None:
    files = {f"state/{part}.dvc": _named_as(on_main(line, "state/replay.dvc"), part)}
    refused_of(line, tmp_path / "checkout", files, rf"state/{part}\.dvc is not the {part} of v3")
    push(line, tmp_path / "pusher", files)
    refused(line, trained, rf"changes 'state/{part}\.dvc'")


def _named_as(content: bytes, part: str) -> bytes:
    return content.replace(b"path: replay", f"path: {part}".encode())


def test_the_run_s_branch_holds_another_record_or_champion(line: Line, trained: list[str], tmp_path: Path) -> None:
    record = json.loads(on_main(line, "versions/v0003.json"))
    record["digests"]["state"]["adapter"] = record["digests"]["state"]["replay"]
    forged = {
        "versions/v0003.json": json_text(record).encode(),
        "state/adapter.dvc": _named_as(on_main(line, "state/replay.dvc"), "adapter"),
    }
    refused_of(line, tmp_path / "one", forged, r"state/adapter\.dvc is not")
    refused_of(
        line, tmp_path / "two", {"state/champion.json": json.dumps(whole_champion("v7")).encode()}, "record of v7"
    )
    refused_of(line, tmp_path / "three", {"state/champion.json": b"{"}, "champion.json")
    push(line, tmp_path / "pusher", forged)
    refused(line, trained, r"changes 'state/adapter\.dvc'")


def test_md5_is_not_enough(line: Line, trained: list[str]) -> None:
    record = json.loads(on_main(line, "versions/v0003.json"))
    record["files"]["base/bytes"] = "0" * 64
    commit(line, {"versions/v0003.json": json_text(record).encode()})
    refused(replace(line, trusted_keys=""), trained, "base/bytes is not that of v3's record")
    refused(line, trained, r"v0003\.sig does not count")


def test_a_champion_that_nobody_signed_who_counts(line: Line, trained: list[str], tmp_path: Path) -> None:
    make_keys(tmp_path / "other", "retain")
    refused(replace(line, trusted_keys=str(tmp_path / "other" / TRUSTED)), trained, r"v0003\.sig does not count")
    rewrite(line, {"versions/v0003.intoto.json": None})
    refused(line, trained, r"v0003\.intoto\.json is not there")


def test_an_unsigned_champion_after_signed_ones(line: Line, trained: list[str]) -> None:
    add_version(replace(line, signing_key=""), created="2026-01-01T00:00:00+00:00")
    open_run(line, RunSpec(id="r-400"))
    for step in (INGEST, DRIFT):
        run_stage(line, "r-400", step, fake_stage(step, {"ingest": "ok", "drift": "drifted"}[step.name]))
    with pytest.raises(IntegrityError, match=r"v0004\.sig is not there, and v4 should be signed"):
        commands.run_step(line, "r-400", "update")
    assert trained == []
    commands.run_step(replace(line, trusted_keys=""), "r-400", "update")
    assert trained == ["r-400"]


def test_a_step_that_loads_no_model_asks_nothing(line: Line, trained: list[str]) -> None:
    commit(line, {"versions/v0003.json": b"{"})
    open_run(line, RunSpec(id="r-400"))
    commands.run_step(line, "r-400", "ingest")
    assert trained == ["r-400"]


def test_what_is_exported_or_drawn_with_is_checked(line: Line, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cl_steps.operations.models.load_params", lambda _: None)
        with fetched(line, "v3") as model:
            assert (model.base / "bytes").read_text() == "base"
        overwrite(stored(line, "state/base.dvc", "bytes"), b"tampered")
        with pytest.raises(IntegrityError, match="base"), fetched(line, None):
            pass
        overwrite(stored(line, "state/base.dvc", "bytes"), b"base")
        commit(line, {"versions/v0003.sig": on_main(line, "versions/v0002.sig")})
        with pytest.raises(IntegrityError, match=r"v0003\.sig does not count"), fetched(line, "v3"):
            pass
        with fetched(line, "v2"):
            pass
