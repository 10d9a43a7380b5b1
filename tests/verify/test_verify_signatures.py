"""Who signed what, and when: what no longer agrees with its signature, or has none that counts, is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml

from cl_steps.__main__ import main as command
from cl_steps.documents import json_text
from cl_steps.records.keys import SIGNING, TRUSTED, make_keys, rotate_keys
from cl_steps.repository.git import text
from cl_steps.repository.line import Line
from tests.lines.small import with_keys
from tests.lines.tampering import (
    FILES,
    add_version,
    folder_of,
    kinds,
    line_of_three,
    named,
    on_main,
    rewrite,
    seen,
)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_of_three(tmp_path / "line")


SIGNED = [
    pytest.param("record", "v2 signature", marks=pytest.mark.slow),
    pytest.param("signature", "v2 signature", marks=pytest.mark.slow),
    pytest.param("provenance", "v2 provenance", marks=pytest.mark.slow),
    pytest.param("answer", "", marks=pytest.mark.slow),
    pytest.param("an answer's signature", ""),
]


@pytest.mark.parametrize(("what", "where"), SIGNED)
def test_a_signed_file_in_a_history_written_anew(what: str, where: str, line: Line) -> None:
    """Where nobody changed a file, but all of history, signatures alone tell."""
    path = named(line, *FILES[what])
    rewrite(line, {path: on_main(line, path).replace(b"3", b"2", 1)})
    found = kinds(seen(line))
    assert found["v3 record"] == {"rewritten"}
    assert found[where or named(line, "events/", "answer-r-150.json")] & {"bad_signature", "untrusted"}, found


def test_an_unsigned_event_is_held_by_the_next_signed_record(line: Line) -> None:
    path = named(line, "events/", "run-r-150.json")
    rewrite(line, {path: on_main(line, path).replace(b'"held"', b'"rejected"')})
    assert kinds(seen(line)) == {"v3 record": {"rewritten"}}


def test_a_record_of_before_beside_a_signature(line: Line) -> None:
    record = json.loads(on_main(line, "versions/v0001.json"))
    old = {**{key: value for key, value in record.items() if key not in ("files", "main")}, "schema": 1}
    rewrite(line, {"versions/v0001.json": json_text(old).encode()})
    found = kinds(seen(line))
    assert found["v1 signature"] == found["v1 provenance"] == {"bad_signature"}
    assert "v1 record" not in found


def test_a_key_that_was_rotated_counts_for_what_it_signed(line: Line) -> None:
    rotate_keys(Path(line.signing_key).parent, "retain")
    assert not seen(line).findings
    assert add_version(line) == "v4"
    assert not seen(line).findings
    shutil.copy(Path(line.trusted_keys).parent / "retain-2.pem", Path(line.trusted_keys).parent / "retain-1.pem")
    assert kinds(seen(line))["v3 signature"] == {"untrusted"}
    assert kinds(seen(line, "v1")) == {place: {"untrusted"} for place in ("v1 signature", "v1 provenance")} | {
        named(line, "events/", "answer-r-150.json"): {"untrusted"}
    }


def expire(line: Line, moment: datetime) -> None:
    trusted = Path(line.trusted_keys)
    values = yaml.safe_load(trusted.read_text(encoding="utf-8"))
    values["keys"][0]["until"] = moment.isoformat()
    trusted.write_text(yaml.safe_dump(values), encoding="utf-8")


def test_a_key_counts_until_it_ends(line: Line) -> None:
    made = datetime.fromisoformat(json.loads(on_main(line, "versions/v0003.json"))["created"])
    expire(line, made)
    assert not seen(line).findings
    expire(line, made - timedelta(seconds=1))
    found = kinds(seen(line))
    assert found["v3 signature"] == found["v3 provenance"] == {"untrusted"}


LONG_AGO = "2026-01-01T00:00:00+00:00"


def test_a_version_of_an_old_key_that_is_dated_back(line: Line, tmp_path: Path) -> None:
    """Whoever stole the key before may sign with it, but nothing that is newer than its end."""
    thief = replace(line, signing_key=str(shutil.copy(line.signing_key, tmp_path / "stolen.pem")), trusted_keys="")
    made = datetime.fromisoformat(json.loads(on_main(line, "versions/v0003.json"))["created"])
    rotate_keys(Path(line.signing_key).parent, "retain")
    expire(line, made)
    add_version(thief, created=(made + timedelta(seconds=1)).isoformat())
    add_version(thief, created=(made - timedelta(seconds=1)).isoformat())
    found = kinds(seen(line))
    assert found["v4 signature"] == found["v4 provenance"] == {"untrusted"}
    assert found["v5 record"] == {"inconsistent"}


def test_a_key_that_came_later(line: Line, tmp_path: Path) -> None:
    """As if the line had been without one until now."""
    rewrite(line, dict.fromkeys(signatures(line)))
    shutil.rmtree(Path(line.signing_key).parent)
    record = json.loads(on_main(line, "versions/v0003.json"))
    begins = (datetime.fromisoformat(record["created"]) + timedelta(seconds=1)).isoformat()
    signing = with_keys(line, tmp_path / "line")
    begin_at(signing, begins)
    add_version(signing, created=begins)
    found = seen(signing)
    assert {(note.kind, note.where) for note in found.findings if not note.fault} == {
        *(("unsigned", f"v{number} {name}") for number in (1, 2, 3) for name in ("signature", "provenance")),
        *(("unsigned", f"v{number} {step}") for number in (2, 3) for step in ("evaluate", "gate")),
        ("unsigned", named(line, "events/", "answer-r-150.json")),
    }
    assert {fault.kind for fault in found.faults} == {"rewritten"}, "only the test's own rewriting is seen"


def begin_at(line: Line, moment: str) -> None:
    trusted = Path(line.trusted_keys)
    values = yaml.safe_load(trusted.read_text(encoding="utf-8"))
    for key in values["keys"]:
        key["from"] = moment
    trusted.write_text(yaml.safe_dump(values), encoding="utf-8")


def test_an_unsigned_version_after_a_signed_one_however_it_is_dated(line: Line) -> None:
    add_version(replace(line, signing_key=""), created=LONG_AGO)
    found = kinds(seen(line))
    assert found["v4 signature"] == found["v4 provenance"] == {"unsigned"}
    assert found["v4 record"] == {"inconsistent"}


def test_signatures_that_were_all_taken_away(line: Line) -> None:
    rewrite(line, dict.fromkeys(signatures(line)))
    found = kinds(seen(line))
    assert {where for where, found_there in found.items() if "unsigned" in found_there} >= {
        "v1 signature",
        "v2 signature",
        "v3 provenance",
    }


def signatures(line: Line) -> list[str]:
    names = text(Path(line.git), "ls-tree", "-r", "--name-only", "main").splitlines()
    return [name for name in names if name.endswith((".sig", ".intoto.json"))]


def test_other_keys_than_the_deployment_s(line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_keys(tmp_path / "other", "retain")
    assert command(["verify", "--dir", folder_of(line), "--keys", str(tmp_path / "other" / TRUSTED)]) == 5
    assert "untrusted: v3 signature" in capsys.readouterr().out
    assert command(["verify", "--dir", folder_of(line), "--keys", str(tmp_path / "none")]) == 2
    assert (tmp_path / "other" / SIGNING).is_file()
