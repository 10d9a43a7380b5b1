"""`retain asset` on a line whose ingest, splits, shards, ledger and store are the real ones."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from cl_steps.__main__ import main
from cl_steps.commands.asset import asset, span
from cl_steps.commands.rollback import rollback
from cl_steps.commands.withdraw import withdraw
from cl_steps.data.manifests import KNOWN, reading_store
from cl_steps.errors import NoUsableData, UsageError
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.trace.assets import where
from tests.data.landings import encoded, picture
from tests.lasting import documents
from tests.lines.explaining import Fabricated
from tests.lines.playing import line_after, night, sha_of

PARTS = {"replay": "manifest.parquet", "global_eval": "manifest.parquet", "reference": KNOWN}


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_after(tmp_path / "line", nights=2)


def stored_members(line: Line) -> dict[tuple[str, str], set[str]]:
    """(version, part of its state) to the assets that the store's own manifest lists."""
    with reading(line.git) as main_now, reading_store(line.store) as manifests:
        found = {}
        for record in documents(main_now):
            for part, name in PARTS.items():
                table = manifests.read(record["digests"]["state"][part], name)
                assert table is not None
                found[record["version"], part] = set(table["sha256"].to_pylist())
        return found


def test_real_steps_keep_what_the_index_derives(line: Line) -> None:
    """Evaluation sets and what is known are derived from batches: what the steps stored must be the same."""
    members = stored_members(line)
    for sha in set().union(*members.values()):
        found = where(line, sha)
        for part, told in (("replay", found.replay), ("global_eval", found.evaluation), ("reference", found.reference)):
            assert set(told) == {version for (version, p), names in members.items() if p == part and sha in names}


def test_after_rollback_and_withdrawal(line: Line, tmp_path: Path) -> None:
    folder = str(tmp_path / "line")
    sha = next(sha_of(n) for n in range(20, 32) if where(line, sha_of(n)).learnt)
    assert where(line, sha).champion["how"] == "replayed"
    rollback("v1", "as it was", False, "Ada", "command line", folder)
    found = where(line, sha)
    assert found.champion == {"version": "v1", "how": None}
    assert found.learnt == ("v2",)
    withdraw(sha, None, "she asked", False, "Ada", "command line", folder, False)
    assert night(line, "r-9", range(60, 72)) == "v4"
    found = where(line, sha)
    assert found.withdrawn is not None
    assert found.withdrawn["by"] == "Ada"
    assert not {"v4"} & {*found.replay, *found.reference, *found.replayed_by, *found.descendants}
    withdraw(sha, None, "every byte", True, "Ada", "command line", folder, False)
    found = where(line, sha)
    assert found.facts is None
    assert not found.places
    # Who learnt it is no secret of the bytes that are gone.
    assert (found.learnt, found.descendants, found.champion["how"]) == (("v2",), ("v3",), None)
    assert [row["version"] for row in found.runs] == ["v2"]
    text = asset(sha, folder, False, False)
    assert isinstance(text, str)
    assert "its bytes erased: every byte" in text
    assert "picture" not in text


def test_a_copy_is_found_by_its_likeness(line: Line, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.open(io.BytesIO(encoded(picture(25)))).convert("RGB").save(stream, "JPEG", quality=80)
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(stream.getvalue())
    folder = str(tmp_path / "line")
    with pytest.raises(NoUsableData, match="--near"):
        asset(str(copy), folder, False, False)
    found = asset(str(copy), folder, True, True)
    assert isinstance(found, dict)
    assert found["asset"]["known"] is False
    assert [near["sha256"] for near in found["near"]] == [sha_of(25)]
    assert 0 < found["near"][0]["distance"] < 3
    assert found["near"][0]["intakes"][0]["run"] == "r-1"
    text = asset(str(copy), folder, True, False)
    assert isinstance(text, str)
    assert "never saw it" in text
    assert "near, RMSE" in text


def test_the_command_line(line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "line")
    assert main(["asset", sha_of(25).upper(), "--dir", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["asset"]["sha256"] == sha_of(25)
    assert main(["asset", "0" * 64, "--dir", folder]) == 3
    assert re.fullmatch(r"retain asset: the line never saw .*\n", capsys.readouterr().err)
    assert main(["asset", "nothing.png", "--dir", folder]) == 2
    (tmp_path / "notes.txt").write_text("no picture")
    assert main(["asset", str(tmp_path / "notes.txt"), "--dir", folder, "--near"]) == 2


def test_what_a_line_began_with(line: Line, tmp_path: Path) -> None:
    text = asset(sha_of(3), str(tmp_path / "line"), False, False)
    assert isinstance(text, str)
    assert "with v1: the line began with it" in text


def test_hostile_texts_reach_no_terminal(tmp_path: Path) -> None:
    line = Fabricated(tmp_path, hostile="\x1b[2J\n\u202e")
    line.night(quarantined="cd" * 32)
    line.push()
    line.line.save(tmp_path)
    for name in (line.intakes["r-0001"]["sha256"][0].as_py(), "cd" * 32):
        text = asset(name, str(tmp_path), True, False)
        assert isinstance(text, str)
        assert not re.search(r"[^\x20-\x7e\n]", text)
        assert max(map(len, text.splitlines())) < 120


def test_spans() -> None:
    assert span(()) == "-"
    assert span(("v1", "v2", "v3", "v7", "v9", "v10")) == "v1 to v3, v7, v9, v10"


def test_neither_file_nor_digest(tmp_path: Path) -> None:
    line = Fabricated(tmp_path)
    line.push()
    line.line.save(tmp_path)
    with pytest.raises(UsageError, match="neither a file nor a SHA-256"):
        asset("v7", str(tmp_path), False, False)
