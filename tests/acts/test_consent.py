"""Consent that ends: not taken in after it, in no batch, and withdrawn by the next night in an act that is signed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cl_steps.acts.withdrawal_scope import rows_of_line
from cl_steps.commands.withdraw import withdraw
from cl_steps.config import Ingest
from cl_steps.data.intake import Intake, take_in
from cl_steps.data.manifests import reading_store
from cl_steps.errors import UsageError
from cl_steps.ledger.events import WithdrawalEvent
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import read_run
from cl_steps.steps import close, ingest
from cl_steps.verify.authenticity import Trust
from cl_steps.verify.verification import verify
from tests.data.hostile import counted
from tests.data.landings import encoded, jsonl, picture, put
from tests.lines.playing import begin, drawn, land, make_line, night, sha_of

UNTIL = "2020-06-30"


def take(folder: Path, today: str = "", **knobs: object) -> Intake:
    intake = take_in(folder, Ingest(**knobs), 0, "r-1", today=today)  # type: ignore[arg-type]
    assert counted(intake) == intake.landed.arrived
    return intake


def one(folder: Path, number: int = 0, **facts: object) -> Path:
    put(folder, f"{number}.png", encoded(picture(number)))
    jsonl(folder, {"file_name": f"{number}.png", "text": "x", **facts})
    return folder


@pytest.mark.parametrize(
    ("today", "code"), [("2020-06-29", ""), ("2020-06-30", ""), ("2020-07-01", "consent_ended"), ("", "")]
)
def test_consent_holds_to_the_end_of_its_last_day(tmp_path: Path, today: str, code: str) -> None:
    intake = take(one(tmp_path, consent_until=UNTIL), today)
    assert [found.code for found in intake.quarantine] == ([code] if code else [])
    assert intake.assets.manifest["consent_until"].to_pylist() == ([] if code else [UNTIL])


@pytest.mark.parametrize("value", ["30.06.2020", "2020-13-01", "soon", "2020", 2020])
def test_a_day_that_is_none_is_said(tmp_path: Path, value: object) -> None:
    (found,) = take(one(tmp_path, consent_until=value)).quarantine
    assert found.code in ("bad_fact", "bad_type")


def test_a_line_may_take_some_licences_and_consents_only(tmp_path: Path) -> None:
    one(tmp_path, 0, licence="cc0-1.0", consent="given")
    one(tmp_path, 1, licence="CC-BY-NC-4.0", consent="given")
    one(tmp_path, 2, consent="given")
    one(tmp_path, 3, license="CC-BY-4.0")
    intake = take(tmp_path, licences=("CC0-1.0", "CC-BY-4.0"), consents=("given",))
    assert {found.file: found.code for found in intake.quarantine} == {
        "1.png": "wrong_licence",
        "2.png": "wrong_licence",
        "3.png": "wrong_consent",
    }
    reasons = sorted(found.reason for found in intake.quarantine)
    assert reasons[0] == "it says no consent, and the line takes given only (ingest.consents)"
    assert (len(intake.assets), len(take(tmp_path).assets)) == (1, 4)


def test_of_one_source_a_night_takes_so_many(tmp_path: Path) -> None:
    for number in range(9):
        one(tmp_path, number, source="agency" if number < 6 else "")
    first = take(tmp_path, max_new_per_source=4)
    assert (len(first.assets), dict(first.landed.left)) == (7, {"source": 2})
    assert "2 files of sources that brought more than ingest.max_new_per_source: left for another night" in list(
        first.landed.words()
    )
    second = take_in(tmp_path, Ingest(max_new_per_source=4), 0, "r-2", first.assets.manifest)
    assert (second.counts["new"], dict(second.landed.left)) == (2, {})


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line that learnt pictures 20 to 31, for two of which consent has ended since."""
    made = make_line(tmp_path / "line", signed=True)
    land(made, range(20, 32))
    lines = Path(made.landing) / "metadata.jsonl"
    words = lines.read_text().splitlines()
    words[:2] = [words[n].replace("}", f', "consent_until": "{UNTIL}"}}') for n in range(2)]
    lines.write_text("\n".join(words))
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_today", lambda _: "2020-01-01")
        assert night(made, "r-1", None) == "v2"
    return made


ENDED = {sha_of(20), sha_of(21)}


def withdrawals(line: Line) -> list[WithdrawalEvent]:
    with reading(line.git) as main:
        return main.ledger().withdrawals


def test_the_next_night_withdraws_what_consent_ended_for(line: Line) -> None:
    assert withdrawals(line) == []
    shutil.rmtree(line.landing)
    assert night(line, "r-2", range(40, 52)) == "v3"
    (event,) = withdrawals(line)
    assert {asset["sha256"] for asset in event.assets} == ENDED
    assert (event.by, event.through, event.reason) == ("retain", "close", "consent ended (consent_until)")
    assert event.touched["learnt"].keys() == {"v2"}
    found = verify(line, None, Trust.read(line.trusted_keys))
    assert [finding for finding in found.findings if "withdrawal" in str(finding)] == []
    with reading(line.git) as main:
        assert any(name.startswith(event.id) and "sig" in name for name in main.folder_files("events"))
    assert night(line, "r-3", range(60, 72)) == "v4"
    assert len(withdrawals(line)) == 1


def test_what_waits_is_in_no_batch_once_consent_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_line(tmp_path / "line")
    land(made, range(20, 32))
    lines = Path(made.landing) / "metadata.jsonl"
    lines.write_text(lines.read_text().replace("}", f', "consent_until": "{UNTIL}"}}', 3))
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_today", lambda _: "2020-01-01")
        assert night(made, "r-1", None, {"drift": "quiet"}) == "no_update"
    begin(made, "r-2", drawn(range(40, 44)), until="ingest")
    figures = read_run(made, "r-2").figures("ingest")
    assert (figures["batch"]["assets"], len(figures["consent_ended"])) == (13, 3)


def test_a_step_that_names_others_has_nothing_withdrawn(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes a run's branch says what to look at, and the dates on main say what is withdrawn."""
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_consent_ended", lambda *_: [sha_of(25), sha_of(26)])
        assert night(line, "r-2", range(40, 52)) == "v3"
    (event,) = withdrawals(line)
    assert {asset["sha256"] for asset in event.assets} == ENDED


def test_a_withdrawal_that_cannot_be_made_ends_no_night(
    line: Line, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(line, "r-2", range(40, 52))

    def refuse(*_: object) -> None:
        raise UsageError("not now")

    with monkeypatch.context() as patch:
        patch.setattr("cl_steps.acts.withdrawal.withdraw", refuse)
        close.run(line, "r-2")
    assert "nothing is withdrawn for ended consent: not now" in capsys.readouterr().err
    assert withdrawals(line) == []


def test_a_person_may_ask_for_it_too(line: Line) -> None:
    where = str(Path(line.git).parents[1])
    event = withdraw(None, None, "they asked", False, "ada", "command line", where, True, consent_ended=True)
    assert isinstance(event, dict)
    assert {asset["sha256"] for asset in event["assets"]} == ENDED
    with pytest.raises(UsageError, match="did consent end before"):
        withdraw(None, None, "again", False, "ada", "command line", where, True, consent_ended=True)
    with reading(line.git) as main, reading_store(line.store) as manifests:
        assert set(rows_of_line(main, main.ledger(), manifests)["sha256"].to_pylist()) >= ENDED
