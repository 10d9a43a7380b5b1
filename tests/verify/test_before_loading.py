"""A record that is used is right, and signed where it should be: on a made-up main."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cl_steps.documents import json_text
from cl_steps.errors import IntegrityError
from cl_steps.ledger.record import Record
from cl_steps.verify import before_loading
from cl_steps.verify.before_loading import check_files, check_record
from tests.lasting import AT
from tests.verify.books import record

SIG, PROVENANCE = "versions/v0002.sig", "versions/v0002.intoto.json"
SIGNED = {SIG: b"s", PROVENANCE: b"p"}


def main_of(document: Any, files: dict[str, bytes], *versions: str) -> Any:
    held = {"versions/v0002.json": document if isinstance(document, bytes) else json_text(document).encode(), **files}
    return SimpleNamespace(read=held.get, blobs=lambda _: versions)


@pytest.mark.parametrize(
    ("document", "words"),
    [(b"{", "no record of a kind"), (b"[]", "no record of a kind"), ({"schema": 1}, "Field required"),
     (record("v3", "v1"), "it says that it is v3")],
)  # fmt: skip
def test_a_record_that_is_none_is_not_used(document: Any, words: str) -> None:
    with pytest.raises(IntegrityError, match=f"record of v2 is not right .*{words}"):
        check_record(main_of(document, {}), "v2", None)
    with pytest.raises(IntegrityError, match="record of v7 is not right"):
        check_record(main_of(document, {}), "v7", None)


def test_both_signatures_are_asked_for_where_anybody_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bytes]] = []
    for name in ("check_version", "check_provenance"):
        monkeypatch.setattr(before_loading, name, lambda *given, name=name: asked.append((name, given[-1])))
    main = main_of(record("v2", "v1"), SIGNED)
    assert check_record(main, "v2", None).version == "v2"
    assert asked == []
    trust: Any = SimpleNamespace(begins=datetime.fromisoformat(AT))
    assert check_record(main, "v2", trust).version == "v2"
    assert asked == [("check_version", b"s"), ("check_provenance", b"p")]


@pytest.mark.parametrize("gone", SIGNED)
def test_what_came_after_a_signed_version_or_the_first_key_is_signed(
    gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("check_version", "check_provenance"):
        monkeypatch.setattr(before_loading, name, lambda *_: None)
    left = {path: content for path, content in SIGNED.items() if path != gone}
    now, later = (SimpleNamespace(begins=datetime.fromisoformat(at)) for at in (AT, "2027-01-01T00:00:00+00:00"))
    document = record("v2", "v1")
    for trust, versions in ((now, ()), (later, ("v0001.sig", "v0003.sig"))):
        with pytest.raises(IntegrityError, match=f"{gone} is not there"):
            check_record(main_of(document, left, *versions), "v2", trust)  # type: ignore[arg-type]
    for versions in ((), ("v0003.sig",), ("v0001.json", "v0003.sig")):
        assert check_record(main_of(document, left, *versions), "v2", later)  # type: ignore[arg-type]


def test_a_folder_holds_just_the_files_of_the_record(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for files, wrong in (
        ({"adapter/w": empty}, None),
        ({"base/w": "0" * 64}, None),
        ({"adapter/w": "0" * 64}, "adapter/w"),
        ({"adapter/w": empty, "adapter/x": empty}, "adapter/x"),
        ({"adapter/x": empty}, "adapter/w"),
    ):
        made = Record.from_document(record("v2", "v1", schema=2, files=files))
        if wrong:
            with pytest.raises(IntegrityError, match=f"{wrong} is not that of v2's record"):
                check_files(made, {"adapter": tmp_path})
        else:
            check_files(made, {"adapter": tmp_path})
