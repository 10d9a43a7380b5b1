"""An image leaves the line: what the report names, what is left nowhere, what is refused ever after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cl_steps.acts.withdrawal as act
from cl_steps.acts.purge import PARTS
from cl_steps.acts.purge import take_out as take_out_of
from cl_steps.acts.withdrawal_scope import own_words
from cl_steps.commands.rollback import rollback
from cl_steps.commands.withdraw import withdraw
from cl_steps.config import Ingest
from cl_steps.data.intake import take_in
from cl_steps.data.manifests import reading_store
from cl_steps.data.shards import read_assets, read_manifest, write_dataset
from cl_steps.errors import StaleRun, UsageError
from cl_steps.repository.git import text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import read_run
from cl_steps.stats.samples import slices_drawn
from cl_steps.steps import close, promote
from cl_steps.store.dvc import fetch
from cl_steps.store.objects import open_store
from cl_steps.store.pointers import read_dvc_file
from cl_steps.verify.verification import verify
from tests.data.landings import encoded, fill, picture
from tests.lasting import documents
from tests.lines.playing import begin, finish, line_after, make_line, night, sha_of

HOSTILE = "no consent\n\nRun-Id: forged\n<img src=x onerror=alert(1)>\x1b[2J"


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Four versions; pictures 20 to 31 came first, with v2, and are in everything since."""
    return line_after(tmp_path / "line", 3)


def take_out(line: Line, what: str | None, source: str | None = None, erase: bool = False, **more: Any) -> Any:
    options = {"reason": "no consent", "by": "ops", "through": "command line", "json": True, **more}
    return withdraw(what, source, erase=erase, dir=str(Path(line.git).parents[1]), **options)


def row_of(line: Line, number: int) -> dict[str, Any]:
    with reading(line.git) as main, reading_store(line.store) as manifests:
        tables = [manifests.read(intake.md5) for intake in main.ledger().intakes.values()]
        rows = [row for table in tables if table is not None for row in table.to_pylist()]
    return next(row for row in rows if row["sha256"] == sha_of(number))


def numbers_in(line: Line, split: str, numbers: range = range(20, 32)) -> list[int]:
    return [number for number in numbers if row_of(line, number)["split"] == split]


def state_of(line: Line, folder: Path) -> Path:
    """The state of main, fetched."""
    with reading(line.git) as main:
        files = {name: content for name, content in main.folder_files("state").items() if name.endswith(".dvc")}
    fetch(folder, line.store, {name.removesuffix(".dvc"): str(read_dvc_file(c)["md5"]) for name, c in files.items()})
    return folder


def objects(line: Line) -> Iterator[tuple[str, bytes]]:
    """Every object of the store: its name, and its bytes, those of Parquet columns unpacked."""
    for path in sorted(Path(line.store).rglob("*")):
        if path.is_file():
            yield path.parent.name + path.name, unpacked(path)


def unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if content[:4] != b"PAR1":
        return content
    rows = pq.ParquetFile(path).read().to_pylist()
    return b"\n".join(_flat(value) for row in rows for value in row.values())


def _flat(value: Any) -> bytes:
    if isinstance(value, dict):
        return b" ".join(map(_flat, value.values()))
    return value if isinstance(value, bytes) else str(value).encode()


def traces(number: int) -> tuple[bytes, bytes]:
    """What must not be found: the name, and the picture."""
    return sha_of(number).encode(), encoded(picture(number))


def tip(line: Line) -> str:
    return text(None, "ls-remote", line.git, "refs/heads/main").split()[0]


def test_the_report_names_everything_that_held_it(line: Line) -> None:
    number = numbers_in(line, "train")[0]
    event = take_out(line, sha_of(number))
    touched = event["touched"]
    assert [asset["sha256"] for asset in event["assets"]] == [sha_of(number)]
    assert touched["intakes"] == {"r-1": 1}
    assert touched["learnt"] == {"v2": {"train": 1}}
    assert touched["clean"] == "v1"
    assert touched["descends"] == ["v3", "v4"]
    assert touched["reference"] == ["v2", "v3", "v4"]
    assert touched["evaluation"] == []
    assert touched["replay"] == [v for v in ("v2", "v3", "v4") if in_replay(line, v, sha_of(number))]
    assert touched["replay"][0] == "v2"
    with reading(line.git) as main:
        assert [act.document() for act in main.ledger().withdrawals] == [event]
        assert main.ledger().tombstones.keys() == {sha_of(number)}


def in_replay(line: Line, version: str, name: str) -> bool:
    with reading(line.git) as main, reading_store(line.store) as manifests:
        record = next(r for r in documents(main) if r["version"] == version)
        table = manifests.read(record["digests"]["state"]["replay"])
    return table is not None and name in table["sha256"].to_pylist()


@pytest.mark.parametrize("split", ["train", "evaluation"])
def test_nothing_of_it_is_in_the_state_and_the_rest_is(line: Line, tmp_path: Path, split: str) -> None:
    number = numbers_in(line, split)[0]
    before = state_of(line, tmp_path / "before")
    assert any(trace in unpacked(path) for path in files(before) for trace in traces(number))
    event = take_out(line, sha_of(number))
    after = state_of(line, tmp_path / "after")
    assert not [path for path in files(after) for trace in traces(number) if trace in unpacked(path)]
    for part in ("base", "adapter", "anchors", "extractor"):
        assert contents(before / part) == contents(after / part)
    for part in PARTS:
        changed = contents(before / part) != contents(after / part)
        assert changed == (part in event["touched"]["state"])
    for part in ("replay", "global_eval"):
        names = [set(read_manifest(folder / part)["sha256"].to_pylist()) for folder in (before, after)]
        assert names[0] - names[1] <= {sha_of(number)} >= names[1] - names[0]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and ".dvc" not in path.parts)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files(folder)}


def test_copies_are_refused_at_the_next_ingest_and_leave_no_bytes(line: Line) -> None:
    take_out(line, sha_of(20))
    copies = {
        "same.png": encoded(picture(20)),
        "again.jpg": encoded(picture(20), "JPEG", quality=85),
        "larger.png": encoded(picture(20).resize((64, 64))),
    }
    begin(line, "r-4", {**copies, "other.png": encoded(picture(100))}, until="ingest")
    report = read_run(line, "r-4").figures("ingest")
    assert {(thing["file"], thing["code"]) for thing in report["quarantine"]} == {(n, "withdrawn") for n in copies}
    assert report["intake"]["assets"] == 1
    intake = read_run(line, "r-4").lock["ingest"]["outs"]
    with open_store(line.store) as store:
        names = [name for out in intake for name in store.listing(out["md5"]) or {}]
    assert not [name for name in names if name.startswith("quarantine/")]


def test_copies_that_wait_go_with_it_and_are_in_no_batch(line: Line) -> None:
    copy = encoded(picture(20).resize((64, 64)))
    others = {f"{number}.png": encoded(picture(number)) for number in range(100, 104)}
    night(line, "r-4", {"copy.png": copy, **others}, {"drift": "quiet"})
    event = take_out(line, sha_of(20))
    name = hashlib.sha256(copy).hexdigest()
    found = {asset["sha256"]: (asset["intake"], asset["copy"]) for asset in event["assets"]}
    assert found == {sha_of(20): ("r-1", False), name: ("r-4", True)}
    assert event["touched"]["runs"] == {"r-4": "no_update"}
    begin(line, "r-5", range(110, 112), until="ingest")
    batch = next(out["md5"] for out in read_run(line, "r-5").lock["ingest"]["outs"] if "batch" in out["path"])
    with open_store(line.store) as store:
        listing = store.listing(batch) or {}
    with reading_store(line.store) as manifests:
        table = manifests.read(batch)
    assert table is not None
    assert set(table["sha256"].to_pylist()) == {sha_of(number) for number in (*range(100, 104), 110, 111)}
    assert not [md5 for md5, content in objects(line) if md5 in listing.values() and copy in content]


def test_a_run_under_way_that_learnt_it_is_stale_and_another_goes_on(line: Line) -> None:
    begin(line, "r-4", range(100, 106))
    take_out(line, image_of(line, 300))
    begin(line, "r-5", range(110, 116))
    take_out(line, image_of(line, 112))
    with pytest.raises(StaleRun, match="withdrawn"):
        promote.run(line, "r-5")
    assert close.run(line, "r-5") == "stale"
    assert finish(line, "r-4") == "v5"
    with reading(line.git) as main:
        assert "withdrawn" in main.ledger().runs["r-5"].why


def image_of(line: Line, number: int) -> str:
    """A file of an image that main does not know."""
    path = Path(line.git).parents[2] / f"{number}.png"
    path.write_bytes(encoded(picture(number)))
    return str(path)


def test_a_rollback_does_not_bring_it_back(line: Line, tmp_path: Path) -> None:
    number = next(n for n in numbers_in(line, "train") if in_replay(line, "v2", sha_of(n)))
    take_out(line, sha_of(number))
    rollback("v2", "worse", False, "ops", "command line", str(Path(line.git).parents[1]))
    folder = state_of(line, tmp_path / "state")
    assert not [path for path in files(folder) for trace in traces(number) if trace in unpacked(path)]
    assert sha_of(number) not in read_manifest(folder / "replay")["sha256"].to_pylist()


def test_erased_bytes_are_nowhere_on_the_store_and_old_versions_can_be_restored(line: Line, tmp_path: Path) -> None:
    number = next(n for n in numbers_in(line, "train") if in_replay(line, "v2", sha_of(n)))
    (Path(line.work) / "checkpoints/key").mkdir(parents=True)
    (Path(line.work) / "checkpoints/key/latents").write_bytes(b"x")
    caption = row_of(line, number)["text"].encode()
    drawn = {name for name, content in objects(line) if caption in content and b'"prompt"' in content}
    event = take_out(line, sha_of(number), erase=True)
    assert not [name for name, content in objects(line) for trace in (*traces(number), caption) if trace in content]
    assert drawn
    assert drawn <= set(event["erased"]), "what was drawn from its caption, too"
    with open_store(line.store) as store:
        held = store.inventory().sizes
        folders = {name for name in held if name.endswith(".dir")}
        assert store.with_files(folders, ()) <= held.keys(), "what other folders list as well stays"
    assert not Path(line.work).exists()
    root, ours = Path(line.git).parents[1], {".retain", ".git", "events"}
    checkout = [path for path in root.rglob("*") if not ours & set(path.relative_to(root).parts)]
    assert not [path for path in checkout for trace in traces(number) if path.is_file() and trace in unpacked(path)]
    assert set(event["replaced"]) <= set(event["erased"])
    with reading(line.git) as main:
        for folder in ("data", "state"):
            named = [read_dvc_file(c) for n, c in main.folder_files(folder).items() if n.endswith(".dvc")]
            assert not {str(out["md5"]) for out in named} & set(event["erased"])
            with open_store(line.store) as store:
                assert all(store.listing(str(out["md5"])) is not None for out in named)
    found = verify(line, None, None)
    assert not found.faults, "also what old versions' nights stored is erased by an event, not missing"
    erased = {note.where.partition(" (")[0] for note in found.findings if note.kind == "erased"}
    assert {"v2 tonight/batch", "v2 tonight/drift/figures", "v2 replay"} <= erased
    told = rollback("v2", "worse", False, "ops", "command line", str(Path(line.git).parents[1]))
    assert "v2 is the champion again" in told
    state_of(line, tmp_path / "state")
    begin(line, "r-4", range(100, 112), until="ingest")


def test_only_the_samples_of_words_that_nothing_else_has_go(tmp_path: Path) -> None:
    rows = pa.table({"sha256": ["a", "b", "c", "d"], "text": ["ann", "a cat", "a cat", ""]})
    assert own_words(rows, {"a", "b", "d"}) == {"ann"}
    assert own_words(rows, {"b", "c"}) == {"a cat"}
    prompts = {"cats": [{"prompt": "a cat", "seed": 1}], "people": [{"prompt": "bob"}, {"prompt": "ann"}]}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    grids = [f"grid-{name}-{model}.png" for name in prompts for model in ("champion", "candidate")]
    for name in grids:
        (tmp_path / name).write_bytes(b"")
    take_out_of(tmp_path, {"a"}, {"ann"})
    assert json.loads((tmp_path / "prompts.json").read_text()) == {"cats": prompts["cats"]}
    assert sorted(path.name for path in tmp_path.glob("grid-*")) == sorted(grids[:2])
    (tmp_path / "prompts.json").write_text(json.dumps({"../a/b": [{"prompt": "ann"}]}))
    take_out_of(tmp_path, {"a"}, {"ann"})
    assert json.loads((tmp_path / "prompts.json").read_text()) == {}, "a slice that is called like a path"
    for content in (b"", b"[]", b"{", b'{"a": 1}', b'{"a": [1]}', b'{"a": [{}]}', b'{"a": [{"prompt": []}]}'):
        assert slices_drawn(content, {"ann"}) == []


def test_a_crash_before_deletion_is_finished_by_the_same_command(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(act, "_delete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            take_out(line, sha_of(20), erase=True)
    assert [name for name, content in objects(line) if traces(20)[1] in content]
    before = tip(line)
    assert "already" in take_out(line, sha_of(20), erase=True, json=False)
    assert tip(line) == before
    assert not [name for name, content in objects(line) if traces(20)[1] in content]


def test_again_changes_nothing_and_erasing_later_is_a_second_event(line: Line) -> None:
    first = take_out(line, sha_of(20))
    before = tip(line)
    assert take_out(line, sha_of(20)) == first
    assert tip(line) == before
    second = take_out(line, sha_of(20), erase=True)
    assert second["id"] != first["id"]
    assert second["touched"] | {"state": {}} == first["touched"] | {"state": {}}
    before = tip(line)
    assert take_out(line, sha_of(20), erase=True) == second
    assert tip(line) == before


@pytest.mark.slow
def test_what_a_run_stored_meanwhile_is_erased_by_the_same_command_again(line: Line) -> None:
    begin(line, "r-4", range(100, 106))
    path = image_of(line, 102)
    take_out(line, path, erase=True)
    assert not [name for name, content in objects(line) if traces(102)[1] in content]
    begin(line, "r-5", range(110, 116), until="ingest")
    assert close.run(line, "r-4") == "stale"
    with reading(line.git) as main, reading_store(line.store) as manifests:
        rows = manifests.read(str(read_dvc_file(main.read("data/r-4.dvc") or b"")["md5"]))
        assert rows is not None
        assert rows.num_rows == 5


@pytest.mark.slow
def test_a_promotion_in_between_is_purged_too(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(line, "r-4", range(100, 106))
    real, versions = act._change, []

    def change(*arguments: Any) -> Any:
        found = real(*arguments)
        if not versions:
            versions.append(finish(line, "r-4"))
        return found

    monkeypatch.setattr(act, "_change", change)
    number = numbers_in(line, "train")[0]
    event = take_out(line, sha_of(number))
    assert versions == ["v5"]
    assert event["touched"]["descends"] == ["v3", "v4", "v5"]
    folder = state_of(line, tmp_path / "state")
    assert not [path for path in files(folder) for trace in traces(number) if trace in unpacked(path)]


def test_all_of_a_source(line: Line) -> None:
    event = take_out(line, None, source="studio")
    assert len(event["assets"]) == 36
    assert event["touched"]["clean"] == "v1"
    assert take_out(line, None, source="studio") == event
    with pytest.raises(UsageError, match="no image of the source"):
        take_out(line, None, source="nobody")


def test_what_the_line_began_with(line: Line, tmp_path: Path) -> None:
    event = take_out(line, sha_of(0), json=False)
    assert "only a new line" in event
    folder = state_of(line, tmp_path / "state")
    assert not [path for path in files(folder) for trace in traces(0) if trace in unpacked(path)]


@pytest.mark.parametrize("what", ["f" * 64, "no-such-file.png", "v2"])
def test_what_is_unknown(line: Line, what: str) -> None:
    with pytest.raises(UsageError):
        take_out(line, what)


def test_a_file_that_is_no_image(line: Line, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"text")
    with pytest.raises(UsageError, match="cannot be withdrawn"):
        take_out(line, str(tmp_path / "x.png"))


def test_the_text_says_that_the_model_still_carries_it_and_what_to_do(line: Line) -> None:
    told = take_out(line, sha_of(numbers_in(line, "train")[0]), json=False)
    assert "still carries" in told
    assert "retain reproduce --from v1 --without" in told
    assert "--erase" in told


def test_a_hostile_reason_is_in_the_event_and_nowhere_else(line: Line) -> None:
    take_out(line, sha_of(20), reason=HOSTILE)
    with reading(line.git) as main:
        assert main.ledger().withdrawals[-1].reason == HOSTILE
        message = text(main.folder, "log", "-1", "--format=%B", main.tip)
    assert message.splitlines()[0] == "withdraw 1 assets"
    assert "Run-Id" not in message


@pytest.mark.slow
def test_purged_parts_are_what_a_line_that_never_saw_it_holds(line: Line, tmp_path: Path) -> None:
    """Byte for byte, although the buffer and the reference were full and others have come in its place."""
    number = next(n for n in numbers_in(line, "train") if in_replay(line, "v4", sha_of(n)))
    blind = make_line(tmp_path / "blind")
    for n in (1, 2, 3):
        night(blind, f"r-{n}", [other for other in range(20 * n, 20 * n + 12) if other != number])
    before = state_of(line, tmp_path / "before")
    take_out(line, sha_of(number))
    purged, other = state_of(line, tmp_path / "purged"), state_of(blind, tmp_path / "other")
    names = [set(read_manifest(folder / "replay")["sha256"].to_pylist()) for folder in (before, purged)]
    assert len(names[0]) == len(names[1])
    rows = [pq.ParquetFile(folder / "reference/features.parquet").metadata.num_rows for folder in (before, purged)]
    assert rows[0] == rows[1]
    for part in ("replay", "reference", "global_eval"):
        assert list(contents(purged / part).values()) == list(contents(other / part).values()), part


def test_the_shards_of_a_folder_are_packed_anew_without_it(tmp_path: Path) -> None:
    assets = list(take_in(fill(tmp_path / "landing", range(9)), Ingest(), 0, "r-1").assets)
    folder = tmp_path / "batch"
    for run, part in (("r-1", assets[:5]), ("r-2", assets[5:])):
        write_dataset(folder / run, part, rows_per_shard=2)
    take_out_of(folder, {assets[1].sha256})
    write_dataset(tmp_path / "expected", [assets[0], *assets[2:5]])
    after = contents(folder)
    assert {n: c for n, c in after.items() if n.startswith("r-1")} == {
        f"r-1/{name}": content for name, content in contents(tmp_path / "expected").items()
    }
    assert read_assets(folder / "r-2") == assets[5:]


def test_json_is_plain(line: Line) -> None:
    assert json.loads(json.dumps(take_out(line, sha_of(20))))["kind"] == "withdrawal"
