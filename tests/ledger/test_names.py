"""What a version is called, and its files."""

from __future__ import annotations

import pytest

from cl_steps.errors import UsageError
from cl_steps.ledger.names import existing, numbers_of, tag_of, version_file


def test_a_versions_record_and_tag() -> None:
    assert [version_file(version) for version in ("v1", "v10000")] == ["versions/v0001.json", "versions/v10000.json"]
    assert tag_of(7) == "model@v0.0.7"


@pytest.mark.parametrize("version", ["v0", "v01", "v1234567890", "1", "v-1", "v1\n", "v1/../x", ""])
def test_what_cannot_be_a_version_is_none(version: str) -> None:
    with pytest.raises(UsageError, match="not a version such as v7"):
        existing(version, [version])


def test_a_version_that_is_not_there_is_none() -> None:
    assert existing("v2", ["v1", "v2"]) == "v2"
    with pytest.raises(UsageError, match="no version 'v3'"):
        existing("v3", ["v1", "v2"])


def test_the_versions_among_files_are_their_records_oldest_first() -> None:
    names = ["v10000.json", "v0002.json", "v0001.json", "v0003.json.sig", "v0000.json", "v3.json", "v0004.intoto.json"]
    assert numbers_of(names) == [1, 2, 10000]
