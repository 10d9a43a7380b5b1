"""The asset index answers as the manifests themselves do, however it came to be as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cl_steps.errors import NoUsableData, Unavailable
from cl_steps.repository.line import Line
from cl_steps.store.objects import Store
from cl_steps.trace.assets import Where, where
from cl_steps.trace.index import ask, place
from tests.lines.explaining import Fabricated, random_line


def held_by(line: Fabricated, name: str, part: str) -> tuple[str, ...]:
    """The versions whose part of the state, as it was written, holds an asset."""
    found = (v for v, told in line.versions.items() if name in told.state[part]["sha256"].to_pylist())
    return tuple(found)


def check(line: Fabricated, name: str, found: Where) -> None:
    """Every list of an answer against the manifests of all versions."""
    batches = tuple(v for v, told in line.versions.items() if name in told.batch["sha256"].to_pylist())
    assert found.facts is not None
    split = found.facts["split"]
    assert found.learnt == (batches if split == "train" else ())
    assert found.probe == (batches if split == "probe" else ())
    assert found.held_out == (batches if split == "evaluation" else ())
    assert found.replay == held_by(line, name, "replay")
    assert found.evaluation == held_by(line, name, "global_eval")
    assert found.reference == held_by(line, name, "reference")
    trained = (v for v, told in line.versions.items() if name in told.trained["sha256"].to_pylist())
    replayed = tuple(trained) if split == "train" else ()
    assert found.replayed_by == replayed
    direct = {*found.learnt, *replayed}
    reached = {v for v in line.versions if direct & {v, *line.parents(v)}}
    assert set(found.descendants) == reached - direct
    assert set(found.teachers) == {(t.parent, v) for v, t in line.versions.items() if t.parent in reached}
    assert (found.champion["how"] is not None) == (line.champion in reached)
    assert (found.withdrawn is not None) == (name in line.tombstones)


@pytest.mark.parametrize("seed", range(3))
def test_answers_are_those_of_the_manifests(tmp_path: Path, seed: int) -> None:
    line = random_line(tmp_path, seed, 25)
    for name in {n for told in line.versions.values() for n in told.state["reference"]["sha256"].to_pylist()}:
        check(line, name, where(line.line, name))


def test_what_never_became_a_version_is_known_with_its_runs(tmp_path: Path) -> None:
    line = Fabricated(tmp_path)
    line.night("rejected")
    first = line.intakes["r-0001"]["sha256"][0].as_py()
    line.night("held")
    line.push()
    found = where(line.line, first)
    assert [row["run"] for row in found.intakes] == ["r-0001"]
    assert [(row["run"], row["outcome"]) for row in found.runs] == [("r-0001", "rejected"), ("r-0002", "held")]
    assert found.learnt == found.replay == found.reference == found.descendants == ()


def test_an_index_that_grew_equals_one_made_anew(tmp_path: Path) -> None:
    line = random_line(tmp_path, 1, 6)
    ask(line.line, lambda db: None)
    for step in range(3):
        line.night("promoted")
        if step == 1:
            line.rollback(line.parents(line.champion)[1])
        line.push()
        ask(line.line, lambda db: None)
    grown = {name: where(line.line, name) for name in _all(line)}
    place(line.line).unlink()
    assert {name: where(line.line, name) for name in _all(line)} == grown


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = random_line(tmp_path, 2, 8)
    ask(line.line, lambda db: None)
    line.night("promoted")
    line.push()
    read: list[str] = []
    real = Store.files
    monkeypatch.setattr(Store, "files", lambda self, md5, names: read.append(md5) or real(self, md5, names))
    ask(line.line, lambda db: None)
    # intake and its quarantine, batch, the parent's replay buffer and the new one
    assert len(read) <= 5
    read.clear()
    where(line.line, next(iter(_all(line))))
    assert read == []


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_cut_index_is_made_anew(tmp_path: Path, share: float, capsys: pytest.CaptureFixture[str]) -> None:
    line = random_line(tmp_path, 3, 8)
    name = next(iter(_all(line)))
    before = where(line.line, name)
    content = place(line.line).read_bytes()
    place(line.line).write_bytes(content[: int(share * len(content))])
    assert where(line.line, name) == before
    assert "made anew" in capsys.readouterr().err
    assert len(place(line.line).read_bytes()) == len(content)


def test_garbage_in_its_place_is_replaced(tmp_path: Path) -> None:
    line = random_line(tmp_path, 3, 3)
    place(line.line).write_bytes(b"no database at all" * 100)
    assert where(line.line, next(iter(_all(line)))).facts


def test_pages_that_are_overwritten_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = random_line(tmp_path, 3, 8)
    name = next(iter(_all(line)))
    before = where(line.line, name)
    path = place(line.line)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    assert where(line.line, name) == before
    assert "damaged" in capsys.readouterr().err


def test_another_history_is_not_mixed_in(tmp_path: Path) -> None:
    line = random_line(tmp_path / "one", 4, 6)
    ask(line.line, lambda db: None)
    other = random_line(tmp_path / "two", 5, 6)
    mixed = Line(other.line.git, other.line.store, "", "")
    place(mixed).write_bytes(place(line.line).read_bytes())
    with pytest.raises(NoUsableData):
        where(mixed, next(iter(_all(line) - _all(other))))
    name = next(iter(_all(other) - set(other.tombstones)))
    check(other, name, where(mixed, name))


def test_an_update_that_fails_leaves_the_index_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = random_line(tmp_path, 6, 5)
    ask(line.line, lambda db: None)
    line.night("promoted")
    line.push()

    def away(*_: object) -> None:
        raise Unavailable("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "files", away)
        with pytest.raises(Unavailable):
            ask(line.line, lambda db: None)
    name = line.versions[line.champion].batch["sha256"][0].as_py()
    check(line, name, where(line.line, name))


def test_nothing_of_an_erased_asset_stays(tmp_path: Path) -> None:
    line = Fabricated(tmp_path)
    line.night()
    name = line.intakes["r-0001"]["sha256"][0].as_py()
    row = next(r for r in line.intakes["r-0001"].to_pylist() if r["sha256"] == name)
    line.push()
    assert where(line.line, name).facts
    line.withdraw([name], erase=True)
    line.push()
    for _ in range(2):
        found = where(line.line, name)
        assert found.facts is None
        assert found.withdrawn is not None
        assert found.withdrawn["erase"]
        assert found.learnt == found.replay == found.reference == ()
        content = place(line.line).read_bytes()
        assert row["text"].encode() not in content
        assert row["thumbnail"] not in content
        place(line.line).unlink()  # once as it forgot, once as it never knew
    others = [n for n in line.intakes["r-0001"]["sha256"].to_pylist() if n != name]
    assert where(line.line, others[0]).intakes


def test_erasing_on_the_way_gives_the_same_index_as_erasing_before(tmp_path: Path) -> None:
    line = Fabricated(tmp_path)
    for _ in range(3):
        line.night()
        line.push()
        ask(line.line, lambda db: None)
    line.withdraw([line.versions["v3"].batch["sha256"][0].as_py()])
    line.night()
    line.withdraw(list(line.tombstones), erase=True)
    line.night()
    line.push()
    grown = {name: where(line.line, name) for name in _all(line)}
    place(line.line).unlink()
    assert {name: where(line.line, name) for name in _all(line)} == grown


def test_a_dataset_that_the_store_lost_is_named(tmp_path: Path) -> None:
    line = Fabricated(tmp_path)
    line.night()
    md5 = line.versions["v2"].record["digests"]["state"]["replay"]
    (line.store / "files/md5" / md5[:2] / md5[2:]).unlink()
    line.push()
    found = where(line.line, line.intakes["r-0001"]["sha256"][0].as_py())
    assert found.unread == (md5,)
    assert found.replay == ()


def of_source(line: Line, source: str) -> tuple[str, ...]:
    """The SHA-256 of every asset of a source, sorted."""
    query = "SELECT hex(sha) FROM assets JOIN kinds ON kinds.id = kind WHERE source = ? ORDER BY sha"
    return ask(line, lambda db: tuple(row[0].lower() for row in db.execute(query, (source,))))


def test_sources_and_quarantine(tmp_path: Path) -> None:
    line = Fabricated(tmp_path)
    line.night(quarantined="ab" * 32)
    line.push()
    every = [
        row for table in (line.intakes["r-0001"], line.versions["v1"].state["reference"]) for row in table.to_pylist()
    ]
    assert of_source(line.line, "studio-1") == tuple(sorted(r["sha256"] for r in every if r["source"] == "studio-1"))
    assert [row["code"] for row in where(line.line, "ab" * 32).quarantined] == ["damaged"]


def test_a_line_elsewhere_keeps_its_index_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert place(Line("https://git/line", "s3://b", "", "")).is_relative_to(tmp_path / "cache" / "retain")
    assert place(Line("https://git/line", "", "", "")) != place(Line("https://git/other", "", "", ""))
    assert place(Line(str(tmp_path / ".retain/git"), "", "", "")) == tmp_path / ".retain/index.sqlite"


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    line = random_line(tmp_path, 0, 2)
    ask(line.line, lambda db: None)
    assert place(line.line).stat().st_mode & 0o077 == 0


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = random_line(tmp_path, 0, 2)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("cl_steps.trace.index.place", lambda line: tmp_path / "file" / "index.sqlite")
    with pytest.raises(Unavailable, match="the asset index"):
        ask(line.line, lambda db: None)


def _all(line: Fabricated) -> set[str]:
    return {n for told in line.versions.values() for n in told.state["reference"]["sha256"].to_pylist()}
