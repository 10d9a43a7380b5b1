"""What main holds of versions, read without a repository."""

from __future__ import annotations

from tests.verify.books import book_of, record


def test_a_record_is_the_version_that_its_file_is_named_after() -> None:
    book = book_of(
        {
            "versions/v0001.json": record("v1"),
            "versions/v0002.json": record("v3", "v1"),
            "versions/v0003.json": {"schema": 1},
            "versions/v0004.json": b"{",
            "versions/v0004.sig": b"",
            "versionslog/x.json": b"",
        }
    )
    assert book.below("versions", ".json") == [f"versions/v000{number}.json" for number in range(1, 5)]
    faults = [version.fault for version in book.versions.values()]
    assert faults[0] is None
    assert faults[1] == "it says that it is v3"
    assert faults[2] is not None
    assert faults[2].endswith("Field required")
    assert faults[3] == "it is no JSON"
    assert [version.record is None for version in book.versions.values()] == [False, True, True, True]
