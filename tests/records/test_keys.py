"""Keys: made once, rotated, read strictly, and never shown."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cl_steps.commands.keys import keys
from cl_steps.errors import UsageError
from cl_steps.records import keys as module
from cl_steps.records.keys import (
    JUDGE,
    SIGNING,
    TRUSTED,
    load_private,
    load_public,
    make_keys,
    read_trusted,
    rotate_keys,
)


def test_the_first_key_is_for_its_owner_alone_and_the_public_half_is_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "keys"
    said = keys(str(folder), "night", rotate=False)
    assert "night-1" in said
    assert "PRIVATE" not in said
    assert stat.S_IMODE((folder / SIGNING).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / JUDGE).stat().st_mode) == 0o600
    key, judge = read_trusted(folder / TRUSTED).keys
    assert (key.name, key.role, key.file, key.until) == ("night-1", "trusted", "night-1.pem", None)
    assert (judge.name, judge.role, judge.file, judge.until) == ("night-judge-1", "judge", "night-judge-1.pem", None)
    assert abs(key.since - datetime.now(UTC)) < timedelta(minutes=1)
    assert load_public(folder / "night-1.pem") == load_private(folder / SIGNING).public_key()
    assert load_public(folder / "night-judge-1.pem") == load_private(folder / JUDGE).public_key()
    assert sorted(path.name for path in folder.iterdir()) == [
        JUDGE,
        "night-1.pem",
        "night-judge-1.pem",
        SIGNING,
        TRUSTED,
    ]


def test_a_rotation_ends_the_key_before_and_deletes_its_private_half(tmp_path: Path) -> None:
    make_keys(tmp_path, "retain")
    old = (tmp_path / SIGNING).read_bytes()
    assert "private key is deleted" in keys(str(tmp_path), "retain", rotate=True)
    first, judge, second, other = read_trusted(tmp_path / TRUSTED).keys
    assert (judge.name, other.name, other.until) == ("retain-judge-1", "retain-judge-2", None)
    assert judge.until == first.until
    assert (first.name, second.name, second.until) == ("retain-1", "retain-2", None)
    assert first.until == second.since
    assert all(old != path.read_bytes() for path in tmp_path.iterdir())
    assert load_public(tmp_path / "retain-2.pem") == load_private(tmp_path / SIGNING).public_key()


def test_a_folder_of_before_the_judge_had_a_key_gets_one_with_the_next_rotation(tmp_path: Path) -> None:
    make_keys(tmp_path, "retain")
    entries = module.yaml.safe_load((tmp_path / TRUSTED).read_text(encoding="utf-8"))["keys"]
    old = [{name: value for name, value in entry.items() if name != "role"} for entry in entries[:1]]
    (tmp_path / TRUSTED).write_text(module.yaml.safe_dump({"keys": old}), encoding="utf-8")
    (tmp_path / JUDGE).unlink()
    rotate_keys(tmp_path, "retain")
    found = [(key.name, key.role, key.until is None) for key in read_trusted(tmp_path / TRUSTED).keys]
    assert found == [("retain-1", "trusted", False), ("retain-2", "trusted", True), ("retain-judge-1", "judge", True)]


def test_somebody_elses_key_goes_on_counting(tmp_path: Path) -> None:
    other = {"name": "ci", "identity": "ci@example.org", "issuer": "https://issuer", "from": "2026-01-01"}
    (tmp_path / TRUSTED).write_text(module.yaml.safe_dump({"keys": [other]}), encoding="utf-8")
    make_keys(tmp_path, "retain")
    rotate_keys(tmp_path, "other")
    found = {key.name: key.until is None for key in read_trusted(tmp_path / TRUSTED).keys}
    assert found == {"ci": True, "retain-1": False, "retain-judge-1": False, "other-1": True, "other-judge-1": True}


def test_a_rotation_that_was_killed_is_made_good_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_keys(tmp_path, "retain")
    write = module._write

    def killed(file: Path, content: bytes, mode: int) -> None:
        if file.name == SIGNING:
            raise KeyboardInterrupt
        write(file, content, mode)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            rotate_keys(tmp_path, "retain")
    rotate_keys(tmp_path, "retain")
    open_ended = [key.name for key in read_trusted(tmp_path / TRUSTED).keys if key.until is None]
    assert open_ended == ["retain-3", "retain-judge-3"]
    assert load_public(tmp_path / "retain-3.pem") == load_private(tmp_path / SIGNING).public_key()


def test_a_key_is_never_overwritten_and_none_is_rotated_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave --rotate out"):
        keys(str(tmp_path), "retain", rotate=True)
    make_keys(tmp_path, "retain")
    before = (tmp_path / SIGNING).read_bytes()
    with pytest.raises(UsageError, match="--rotate"):
        keys(str(tmp_path), "retain", rotate=False)
    assert (tmp_path / SIGNING).read_bytes() == before
    with pytest.raises(UsageError, match="small letters"):
        keys(str(tmp_path / "x"), "../x", rotate=False)


GOOD = "name: a, file: a.pem, from: 2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "list of them"),
        ("keys: []", "keys"),
        ("keys: [{name: a, from: 2026-01-01}]", "either a file, or an identity"),
        ("keys: [{name: a, file: a.pem, identity: b, issuer: c, from: 2026-01-01}]", "either a file"),
        ("keys: [{name: a, identity: b, from: 2026-01-01}]", "either a file"),
        (f"keys: [{{{GOOD}}}, {{{GOOD}}}]", "the same name"),
        (f"keys: [{{{GOOD}, colour: red}}]", "unknown key"),
        ("keys: [{name: a, file: a.pem}]", "from"),
        ("keys: [{name: a, file: a.pem, from: 2026-01-01T00:00:00}]", "timezone"),
        ("keys: [{name: a, file: a.pem, from: yesterday}]", "from"),
        ("keys: [", "not valid YAML"),
    ],
)
def test_trusted_keys_are_read_strictly(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / TRUSTED).write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=words) as raised:
        read_trusted(tmp_path / TRUSTED)
    assert "\n" not in str(raised.value)


def test_a_key_that_is_none_is_one_sentence_without_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n", encoding="utf-8")
    for load in (load_private, load_public):
        for name in ("k", "none"):
            with pytest.raises(UsageError, match=name) as raised:
                load(tmp_path / name)
            assert "hush" not in str(raised.value)
    make_keys(tmp_path / "keys", "retain")
    with pytest.raises(UsageError, match="public"):
        load_public(tmp_path / "keys" / SIGNING)


@pytest.mark.parametrize(
    "content", ["&a [*a]", "keys: &a [*a]", "keys: [{name: x, from: 2026-13-45}]", "[" * 3000, "\0", "- x", "keys: 1"]
)
def test_trusted_keys_that_are_none_are_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "trusted.yaml").write_text(content)
    with pytest.raises(UsageError, match=r"trusted\.yaml") as caught:
        read_trusted(tmp_path / "trusted.yaml")
    assert len(str(caught.value)) < 500
