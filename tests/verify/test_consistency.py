"""A record agrees with itself, and with the state that it says it was made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cl_steps.ledger.record import Record as Version
from cl_steps.repository.git import text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.verify.consistency import disagreements, state_digests
from tests.lasting import documents
from tests.lines.tampering import line_of_three

Record = dict[str, Any]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return line_of_three(tmp_path_factory.mktemp("lines") / "line")


@pytest.fixture
def record(line: Line) -> Record:
    with reading(line.git) as main:
        return documents(main)[1]


@pytest.fixture
def before(line: Line) -> dict[str, str]:
    """The state that v2 was made from."""
    with reading(line.git) as main:
        commit = main.version_commit("v2")
        return state_digests(main.at(text(main.folder, "rev-parse", f"{commit}^")).folder_files("state"))


def dep(record: Record, stage: str, path: str) -> Record:
    [found] = [dep for dep in record["stages"][stage]["deps"] if dep["path"] == path]
    return found


OTHER = f"{'0' * 32}.dir"
EDITS: dict[str, Callable[[Record], None]] = {
    "its teacher is": lambda r: r["digests"].update(teacher=OTHER),
    "its base is": lambda r: r["digests"].update(base=OTHER),
    "its extractor is": lambda r: r["digests"].update(extractor=OTHER),
    "update read another state/adapter": lambda r: dep(r, "update", "state/adapter").update(md5=OTHER),
    "update read another state/replay": lambda r: dep(r, "update", "state/replay").update(md5=OTHER),
    "evaluate read another tonight/candidate/adapter": lambda r: dep(r, "evaluate", "tonight/candidate/adapter").update(
        md5=OTHER
    ),
    "state/adapter is not the tonight/candidate/adapter": lambda r: r["digests"]["state"].update(adapter=OTHER),
    "gate ran with another gate of params.yaml": lambda r: r["parameters"]["file"].update(gate={}),
    "ran with other parameters of the run's own": lambda r: r["parameters"]["set"].update({"update.steps": 1}),
    "state/replay is not the": lambda r: r["stages"]["update"].update(outs=[]),
}


@pytest.mark.parametrize("words", EDITS)
def test_a_record_that_contradicts_itself_or_main(words: str, record: Record, before: dict[str, str]) -> None:
    assert disagreements(Version.from_document(record), before) == []
    EDITS[words](record)
    assert any(words in why for why in disagreements(Version.from_document(record), before))


def test_a_state_that_names_no_bytes() -> None:
    for content in (b"", b"outs: []", b"outs:\n- md5: x:\n  - y", b"\xff"):
        with pytest.raises(ValueError, match="names no bytes"):
            state_digests({"adapter.dvc": content})
