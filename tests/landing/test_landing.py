"""What a run sees of a landing: listed once, bounded before it is copied, under no name but ours."""

from __future__ import annotations

import os
import socket
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from cl_steps.config import Ingest, Params
from cl_steps.errors import NoUsableData, RetainError, Unavailable, UsageError
from cl_steps.landing import snapshot
from cl_steps.landing.bounds import SCRATCH
from cl_steps.landing.entries import Changed, Entry, Listing, TooLarge
from cl_steps.landing.folder import Folder
from cl_steps.landing.place import open_landing
from cl_steps.landing.snapshot import BYTES, Snapshot, take_snapshot
from cl_steps.repository.line import Line
from tests.buckets import KEYS, put, s3_server

AMPLE = Ingest()


@pytest.fixture
def s3() -> Iterator[fsspec.AbstractFileSystem]:
    with s3_server() as files:
        yield files


def line_at(landing: object, **places: str) -> Line:
    return Line(**{"git": "", "store": "", "work": "", "landing": str(landing), **places})


def taken(landing: object, root: Path, bounds: Ingest = AMPLE, run: str = "r-1") -> dict[str, Entry]:
    """The objects of a snapshot by name; each that is there is read back as it was."""
    root.mkdir(exist_ok=True)
    take_snapshot(open_landing(line_at(landing), Params(), root), bounds, run, root)
    found = Snapshot.at(root)
    assert found
    entries = found.listing(bounds).entries
    for entry in entries:
        assert not entry.is_there or len(found.read(entry, 2**30)) == entry.num_bytes
    return {entry.name: entry for entry in entries}


def fill(folder: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def why(entries: dict[str, Entry]) -> dict[str, str]:
    return {name: entry.fault or entry.left for name, entry in entries.items()}


@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}"])
def test_nothing_of_a_folder_is_followed_or_waited_for(tmp_path: Path, form: str) -> None:
    fill(tmp_path / "outside", "secret.png")
    landing = fill(tmp_path / "landing", "a.png", "x/b.png")
    (landing / "link.png").symlink_to(tmp_path / "outside/secret.png")
    (landing / "folder").symlink_to(tmp_path / "outside", target_is_directory=True)
    (landing / "loop").symlink_to("loop")
    os.mkfifo(landing / "pipe.png")
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(os.path.relpath(landing / "plug.png"))
    assert why(taken(form.format(landing), tmp_path / "root")) == {
        "a.png": "", "folder": "symlink", "link.png": "symlink", "loop": "symlink", "pipe.png": "not_a_file",
        "plug.png": "not_a_file", "x/b.png": "",
    }  # fmt: skip
    assert (tmp_path / "root" / BYTES).read_bytes() == b"xx"


def test_names_that_are_no_text_and_depths_without_end(tmp_path: Path) -> None:
    landing = fill(tmp_path / "landing", "a.png")
    (landing / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"y")
    before = Path.cwd()
    os.chdir(landing)
    try:
        for _ in range(1300):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.chdir(before)
    entries = taken(landing, tmp_path / "root", Ingest(max_depth=3))
    assert why(entries) == {"a.png": "", "d/d/d/d": "too_deep", "\udcff\udcfe.png": ""}
    names = [path.relative_to(tmp_path / "root").as_posix() for path in (tmp_path / "root").rglob("*.*")]
    assert sorted(names) == ["landing/objects.jsonl", "tonight/landing.bytes"]
    os.system(f"rm -rf '{landing}'")  # noqa: S605  (shutil cannot)


def test_a_file_that_is_too_large_is_not_copied(tmp_path: Path) -> None:
    landing = fill(tmp_path / "landing", "a.png")
    with (landing / "hole.png").open("wb") as file:
        file.truncate(3 * 2**30)
    entries = taken(landing, tmp_path / "root")
    assert why(entries) == {"a.png": "", "hole.png": "too_large"}
    assert entries["hole.png"].num_bytes == 3 * 2**30
    assert (tmp_path / "root" / BYTES).stat().st_size == 1


def test_more_files_than_fit_are_left_and_each_has_its_turn(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(16)]
    landing = fill(tmp_path / "landing", *names, "metadata.jsonl", ".git/x", ".git/y")
    seen: set[str] = set()
    for night in range(16):
        found = why(taken(landing, tmp_path / "root", Ingest(max_files=5), f"r-{night}"))
        assert sorted(found.values()) == [""] * 5 + ["files"] * 14
        assert (found["metadata.jsonl"], found[".git/x"]) == ("", "files")
        seen |= {name for name, reason in found.items() if not reason}
    assert seen == {*names, "metadata.jsonl"}


def test_more_bytes_than_fit_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    landing = fill(tmp_path / "landing", *"abcdefgh", content=b"x" * 100)
    bounded = taken(landing, tmp_path / "root", Ingest(max_landing_bytes=350))
    assert sorted(why(bounded).values()) == [""] * 3 + ["bytes"] * 5
    monkeypatch.setenv(SCRATCH, str(6 * 250))
    assert sorted(why(taken(landing, tmp_path / "root")).values()) == [""] * 2 + ["room"] * 6


def test_metadata_that_is_too_large_takes_no_others_place(tmp_path: Path) -> None:
    landing = fill(tmp_path / "landing", "a/metadata.jsonl", "z/metadata.csv", content=b"x" * 10)
    fill(landing, "metadata.jsonl", content=b"x" * 1000)
    found = why(taken(landing, tmp_path / "root", Ingest(max_metadata_bytes=100, max_file_bytes=5)))
    assert found == {"a/metadata.jsonl": "", "metadata.jsonl": "metadata", "z/metadata.csv": ""}


def test_a_landing_without_end_is_not_listed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cl_steps.landing.entries.LISTED_BEYOND", 5)
    fill(tmp_path / "landing", *(f"{number}/a.png" for number in range(40)))
    root = tmp_path / "root"
    root.mkdir()
    take_snapshot(open_landing(line_at(tmp_path / "landing"), Params(), root), Ingest(max_files=3), "r", root)
    found = Snapshot.at(root)
    assert found
    assert not found.listing(Ingest()).whole


class Faulty:
    """A landing of which objects fail as their names say."""

    at_once = 4
    errors: dict[str, Callable[[], Exception]] = {  # noqa: RUF012
        "forbidden": lambda: PermissionError("no"), "gone": lambda: FileNotFoundError("gone"),
        "changed": lambda: Changed("changed"), "grown": lambda: TooLarge("grown"),
        "away": lambda: RuntimeError("503 slow down"),
    }  # fmt: skip

    def __init__(self, *names: str) -> None:
        self.asked = 0
        self._names = sorted(names)

    def listing(self, bounds: Ingest) -> Listing:
        return Listing(tuple(Entry(name, 4) for name in self._names))

    def read(self, entry: Entry, limit: int) -> bytes:
        self.asked += 1
        kind = entry.name.partition("-")[0]
        if kind in self.errors:
            raise self.errors[kind]()
        return b"good"


def test_one_object_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    take_snapshot(Faulty(*Faulty.errors, "good", "other"), Ingest(), "r-1", tmp_path)
    found = Snapshot.at(tmp_path)
    assert found
    assert why({entry.name: entry for entry in found.listing(Ingest()).entries}) == {
        "away": "away", "changed": "changed", "forbidden": "unreadable", "gone": "changed", "good": "",
        "grown": "too_large", "other": "",
    }  # fmt: skip
    assert found.read(Entry("other", 4), 10) == b"good"


class Growing(Faulty):
    """A landing whose objects are larger when they are read than when they were listed."""

    def read(self, entry: Entry, limit: int) -> bytes:
        return b"x" * 1000


def test_what_grows_meanwhile_fills_no_disk(tmp_path: Path) -> None:
    bounds = Ingest(max_landing_bytes=2000, max_metadata_bytes=1000)
    take_snapshot(Growing(*map(str, range(9))), bounds, "r-1", tmp_path)
    assert (tmp_path / BYTES).stat().st_size == 3000
    found = Snapshot.at(tmp_path)
    assert found
    assert [entry.left for entry in found.listing(bounds).entries] == [""] * 3 + ["bytes"] * 6


def test_a_file_that_grows_between_listing_and_reading_is_left(tmp_path: Path) -> None:
    folder = Folder(fill(tmp_path, "a.png", content=b"abc"))
    (entry,) = folder.listing(AMPLE).entries
    (tmp_path / "a.png").write_bytes(b"abcdef")
    with pytest.raises(Changed):
        folder.read(entry, 100)


def test_a_landing_of_which_nothing_can_be_read_is_away(tmp_path: Path) -> None:
    source = Faulty(*(f"away-{number}" for number in range(3 * snapshot.PATIENCE)))
    with pytest.raises(Unavailable, match="503"):
        take_snapshot(source, Ingest(), "r-1", tmp_path)
    assert source.asked < 2 * snapshot.PATIENCE


HOSTILE_KEYS = {
    "a.png": "", "a.png/b.png": "", "A.png": "", "e\u0301.png": "", "\u00e9.png": "", "*.png": "", "[a].png": "",
    "n" * 300: "", "a\x1b[2J.png": "", "nul\0.png": "", ".dvc/config": "", "%2e%2e/x.png": "", "\\..\\x.png": "",
    "../../up.png": "bad_name", "x/../c.png": "bad_name", "./d.png": "bad_name", "x//e.png": "bad_name",
    "/abs.png": "bad_name", "f.png/": "bad_name", "d/" * 40 + "g.png": "too_deep",
}  # fmt: skip


def test_hostile_keys_of_a_bucket(tmp_path: Path, s3: fsspec.AbstractFileSystem) -> None:
    keys = {**HOSTILE_KEYS, "h?versionId=1": "bad_name"}
    for number, key in enumerate(keys):
        put(s3, f"land/{key}", f"{number}".encode())
    for key in ("folder/", ""):
        put(s3, f"land/{key}", b"")
    assert why(taken("s3://bucket/land", tmp_path / "root")) == keys
    expected = b"".join(f"{list(keys).index(key)}".encode() for key in sorted(keys) if not keys[key])
    assert (tmp_path / "root" / BYTES).read_bytes() == expected


def test_a_bucket_is_listed_page_by_page_to_its_end(
    tmp_path: Path, s3: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        s3.pipe_file(f"bucket/land/{number}", b"" if number == 3 else b"x")
    call = type(s3).call_s3
    monkeypatch.setattr(
        type(s3), "call_s3", lambda self, method, **words: call(self, method, **words, MaxKeys=3), raising=True
    )
    assert list(taken("s3://bucket/land", tmp_path / "root")) == list("0123456")


@pytest.mark.parametrize("url", ["s3://bucket/nowhere", "s3://nowhere/land", "memory://nowhere"])
def test_a_bucket_that_is_not_there(tmp_path: Path, s3: fsspec.AbstractFileSystem, url: str) -> None:
    with pytest.raises(NoUsableData, match="is not there"):
        taken(url, tmp_path / "root")


def test_a_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(pytest.importorskip("s3fs").S3FileSystem, "retries", 1)
    with pytest.raises(Unavailable, match="s3://bucket/land"):
        taken("s3://bucket/land", tmp_path / "root")


@pytest.mark.parametrize("url", ["memory://land", "simplecache::memory://land"])
def test_names_of_other_file_systems(tmp_path: Path, url: str) -> None:
    """Memory has names and no folders; behind another file system it is looked into folder by folder."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    for key in ("/land/a.png", "/land/x/../b.png", "/land/x/c.png", "/landing/d.png", f"/land{'/d' * 40}/e.png"):
        files.pipe_file(key, b"x")
    found = why(taken(url, tmp_path / "root", Ingest(max_depth=3)))
    assert {name.partition("/d/d")[0]: reason for name, reason in found.items()} == {
        "a.png": "", "d": "too_deep", "x/../b.png": "bad_name", "x/c.png": "",
    }  # fmt: skip


def test_an_archive_may_be_a_landing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a.png", "b/c.png", "../up.png", "b//d.png"):
            archive.writestr(name, name)
    found = why(taken(f"zip://::file://{tmp_path}/a.zip", tmp_path / "root"))
    assert (found["a.png"], found["b/c.png"]) == ("", "")
    assert len(found) == 4


SECRETS = {
    "own": "{}/line/.retain", "in own": "{}/line/.retain/keys", "its parent": "{}/line", "all": "/",
    "keys": "{}/keys", "above the keys": "{}", "pod": "/etc/retain", "in the pod": "/etc/retain/credentials",
    "above the pod": "/etc", "as URL": "file://{}/keys", "another URL": "local://{}/keys", "linked": "{}/linked",
    "a mask": "simplecache::file://{}/pictures", "upwards": "{}/pictures/../keys", "credentials": "{}/aws",
}  # fmt: skip


@pytest.mark.parametrize("place", SECRETS.values(), ids=SECRETS.keys())
def test_a_landing_that_reaches_secrets_is_refused(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = fill(tmp_path / "deployment", "keys/signing.pem", "line/.retain/keys/x", "pictures/a.png", "aws/credentials")
    (here / "linked").symlink_to(here / "keys")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(here / "aws/credentials"))
    line = line_at(place.format(here), git=str(here / "line/.retain/git"), signing_key=str(here / "keys/signing.pem"))
    with pytest.raises(UsageError, match=r"name the folder itself|reaches keys"):
        open_landing(line, Params(), tmp_path / "scratch")
    with pytest.raises(UsageError, match=r"name the folder itself|reaches keys"):
        open_landing(replace(line, landing="s3://x"), Params(landing=line.landing), tmp_path / "scratch")


def test_other_folders_are_landings(tmp_path: Path) -> None:
    here = fill(tmp_path, "line/.retain/keys/signing.pem", "line/landing/a.png")
    line = line_at(here / "line/landing", signing_key=str(here / "line/.retain/keys/signing.pem"))
    assert [e.name for e in open_landing(line, Params(), tmp_path / "root").listing(Ingest()).entries] == ["a.png"]
    with pytest.raises(UsageError, match="TMPDIR"):
        open_landing(line, Params(), here / "line/landing/tmp")


@pytest.mark.parametrize(
    ("place", "words"), [("", "no landing"), ("nowhere", "is not there"), ("what://x", "no place")]
)
def test_no_landing_is_one_sentence(tmp_path: Path, place: str, words: str) -> None:
    with pytest.raises(RetainError, match=words):
        taken(place, tmp_path / "root")
