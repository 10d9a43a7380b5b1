"""A store of DVC's, in a folder and on S3: what is put there is there for DVC, and nothing in it is believed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cl_steps.digests import file_sha256
from cl_steps.errors import IntegrityError, Unavailable
from cl_steps.store.digests import bytes_md5, file_md5, folder_md5, object_path, read_listing
from cl_steps.store.dvc import fetch
from cl_steps.store.objects import open_store
from tests.buckets import s3_server

FILES = {"a": b"one", "b/c": b"two", "b-d": b"", "b/e": b"one"}


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        (tmp_path / "store").mkdir()
        yield str(tmp_path / "store")
        return
    with s3_server():
        yield "s3://bucket/a/line"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_bytes(content)
    return tmp_path / "own"


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_put_is_there_until_it_is_deleted(url: str, folder: Path, tmp_path: Path) -> None:
    with open_store(url) as store:
        out = store.put(folder)
        name = str(out["md5"])
        assert out == {"md5": folder_md5(folder), "size": 9, "nfiles": 4}
        listing = store.listing(name)
        assert listing == {path: bytes_md5(data) for path, data in FILES.items()}
        assert store.files(name, ["b/*", "a"]) == {"a": b"one", "b/c": b"two", "b/e": b"one"}
        held = store.inventory()
        assert held.sizes.keys() == store.with_files([name], [name]) == {name, *listing.values()}
        assert held.bytes_of(listing.values()) == 9
        assert held.drafts == {}
        now = datetime.now(UTC)
        assert store.older_than(now - timedelta(days=1), held.sizes) == set()
        assert store.older_than(now + timedelta(days=1), held.sizes) == held.sizes.keys()
        store.copy([name], tmp_path / "copy")
        fetch(tmp_path / "dvc", url, {"part": name})
        (folder / "a").write_bytes(b"changed")
        other = store.put(folder, {"kept": listing["b/c"]})
        assert store.files(str(other["md5"]), ["kept", "a"]) == {"kept": b"two", "a": b"changed"}
        assert store.missing([{**out, "path": "first"}, {**other, "path": "second"}]) == []
        store.delete([listing["b/c"]])
        assert store.missing([{**out, "path": "first"}, {**other, "path": "second"}]) == ["first", "second"]
        store.delete([name])
        assert store.listing(name) is None
        assert store.missing([{**out, "path": "first"}]) == ["first"]
    assert content(tmp_path / "dvc" / "part") == FILES, "DVC reads it as its own"
    with open_store(str(tmp_path / "copy")) as store:
        assert store.files(name, ["*"]) == FILES


def test_objects_are_digested_as_they_are(url: str, folder: Path) -> None:
    with open_store(url) as store, pytest.raises(Unavailable, match="holds no object at all"):
        store.refuse_empty()
    with open_store(url) as store:
        store.put(folder)
        store.refuse_empty()
        name, absent = bytes_md5(b"one"), "0" * 32
        found = store.digests([name, absent], keep=[name])
        assert found[absent] is None
        held = found[name]
        assert held is not None
        assert (held.md5, held.sha256, held.num_bytes) == (name, file_sha256(folder / "a"), 3)
        assert held.content == b"one"
        with store.stream(name) as stream, store.stream(absent) as nothing:
            assert stream is not None
            assert stream.read(2) == b"on"
            assert nothing is None
        assert store.read(absent) is None


def test_a_spoilt_object_is_found_and_leaves_nothing_behind(url: str, folder: Path, tmp_path: Path) -> None:
    with open_store(url) as store:
        listing = store.listing(str(store.put(folder)["md5"]))
        assert listing is not None
        store.place.write(object_path(listing["a"]), b"spoilt")
        for use in (
            lambda: store.read(listing["a"]),
            lambda: store.fetch(listing["a"], tmp_path / "new" / "a"),
            lambda: store.copy([listing["a"]], tmp_path / "copy"),
        ):
            with pytest.raises(IntegrityError, match="not what its name says"):
                use()
        with pytest.raises(IntegrityError, match="is missing from the store"):
            store.fetch("0" * 32, tmp_path / "new" / "a")
    assert content(tmp_path / "new") == content(tmp_path / "copy") == {}


@pytest.mark.parametrize(
    "entries",
    [
        [{"md5": "0" * 32, "relpath": "../outside"}],
        [{"md5": "0" * 32, "relpath": "/outside"}],
        [{"md5": "0" * 32, "relpath": "a/../../outside"}],
        [{"md5": "0" * 32, "relpath": ""}],
        [{"md5": "../../../outside", "relpath": "a"}],
        [{"relpath": "a"}],
        ["a"],
        7,
    ],
)
def test_a_list_that_leads_out_of_its_folder_is_refused(entries: object) -> None:
    with pytest.raises(IntegrityError):
        read_listing(json.dumps(entries).encode(), "x.dir")


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "list").write_bytes(b"[" * 100_000)
    with open_store(str(tmp_path / "store")) as store:
        name = f"{file_md5(tmp_path / 'list')}.dir"
        store.place.put(tmp_path / "list", object_path(name))
        with pytest.raises(IntegrityError, match="no list of files"):
            store.listing(name)
