"""Checkpoints: bit-exact, whole or not at all, nobody else's."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from cl_steps.errors import Unavailable
from cl_steps.models.checkpoints import Checkpoints

TENSORS = {"a": torch.tensor([1e-45, 0.1, -0.0]), "b": torch.arange(4, dtype=torch.float64).view(2, 2)}


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "k").save(7, TENSORS, {"rise": 0.1})
    saved = Checkpoints(tmp_path, "k").load()
    assert saved is not None
    assert (saved.step, saved.facts) == (7, {"rise": 0.1})
    assert all(torch.equal(saved.tensors[key], value) for key, value in TENSORS.items())
    assert torch.signbit(saved.tensors["a"][2])


def test_only_the_latest_is_kept_and_success_removes_all(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "k")
    for step in (10, 20, 100):
        checkpoints.save(step, TENSORS, {})
    folder = tmp_path / "checkpoints/k"
    assert sorted(file.name for file in folder.iterdir()) == ["step-00000100.json", "step-00000100.safetensors"]
    checkpoints.remove()
    assert not folder.exists()
    assert checkpoints.load() is None


def test_other_keys_are_not_found_and_foreign_manifests_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Checkpoints(tmp_path, "k").save(7, TENSORS, {})
    assert Checkpoints(tmp_path, "other").load() is None
    (tmp_path / "checkpoints/k").rename(tmp_path / "checkpoints/other")
    assert Checkpoints(tmp_path, "other").load() is None
    assert "belongs to another run" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["flip", "cut", "tensors gone", "no json", "list"])
def test_a_broken_one_is_passed_over_for_the_one_before(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints, folder = Checkpoints(tmp_path, "k"), tmp_path / "checkpoints/k"
    checkpoints.save(1, TENSORS, {})
    older = {file.name: file.read_bytes() for file in folder.iterdir()}
    checkpoints.save(2, {key: value + 1 for key, value in TENSORS.items()}, {})
    for name, content in older.items():
        (folder / name).write_bytes(content)
    tensors, manifest = folder / "step-00000002.safetensors", folder / "step-00000002.json"
    content = bytearray(tensors.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        tensors.write_bytes(content)
    elif damage == "cut":
        tensors.write_bytes(content[:-5])
    elif damage == "tensors gone":
        tensors.unlink()
    else:
        manifest.write_text("{" if damage == "no json" else json.dumps([1]))
    saved = checkpoints.load()
    assert saved is not None
    assert saved.step == 1
    assert "passed over" in capsys.readouterr().err


def test_without_a_place_nothing_is_kept() -> None:
    checkpoints = Checkpoints(None, "")
    checkpoints.save(1, TENSORS, {})
    assert checkpoints.load() is None
    assert not checkpoints.are_kept
    checkpoints.remove()


@pytest.fixture
def bucket() -> str:
    """An empty place of an object store that lives in this process."""
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket/work/line"


def test_in_an_object_store_the_latest_whole_one_is_kept_too(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = fsspec.filesystem("memory").store
    assert Checkpoints(bucket, "k").load() is None
    for step in (1, 2):
        Checkpoints(bucket, "k").save(step, TENSORS, {"rise": 0.1})
    prefix = "/bucket/work/line/checkpoints/k/step-00000002"
    assert sorted(store) == [f"{prefix}.json", f"{prefix}.safetensors"]
    saved = Checkpoints(bucket, "k").load()
    assert saved is not None
    assert (saved.step, saved.facts) == (2, {"rise": 0.1})
    assert all(torch.equal(saved.tensors[key], value) for key, value in TENSORS.items())
    fsspec.filesystem("memory").pipe_file(f"{prefix}.safetensors", b"torn")
    assert Checkpoints(bucket, "k").load() is None
    assert "passed over" in capsys.readouterr().err
    Checkpoints(bucket, "k").remove()
    assert not store


@pytest.mark.parametrize("fatal", [1, 2, 3, 4])
def test_an_upload_cut_off_anywhere_leaves_a_whole_one(
    bucket: str, fatal: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Checkpoints(bucket, "k").save(1, TENSORS, {})
    touches = iter(range(1, 100))

    def cut(own: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if next(touches) >= fatal:
                raise ConnectionError("connection reset")
            return own(*arguments, **options)

        return call

    for name in ("pipe_file", "rm_file"):
        monkeypatch.setattr(MemoryFileSystem, name, cut(getattr(MemoryFileSystem, name)))
    Checkpoints(bucket, "k").save(2, TENSORS, {})
    said = capsys.readouterr().err
    assert ("is not kept, and training goes on" in said) is (fatal <= 2)
    assert ("older checkpoints stay" in said) is (fatal > 2)
    saved = Checkpoints(bucket, "k").load()
    assert saved is not None
    assert saved.step == (1 if fatal <= 2 else 2)


def test_a_store_that_cannot_be_read_is_no_reason_to_begin_anew(
    bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Checkpoints(bucket, "k").save(1, TENSORS, {})

    def away(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "ls", away)
        with pytest.raises(Unavailable, match="no route to host"):
            Checkpoints(bucket, "k").load()
        Checkpoints(bucket, "k").remove()
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "cat_file", away)
        with pytest.raises(Unavailable, match="no route to host"):
            Checkpoints(bucket, "k").load()
    assert Checkpoints(bucket, "k").load() is not None


def test_a_full_disk_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Checkpoints(tmp_path, "k").save(1, TENSORS, {})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    Checkpoints(tmp_path, "k").save(2, TENSORS, {})
    assert "step 2 is not kept, and training goes on" in capsys.readouterr().err
    saved = Checkpoints(tmp_path, "k").load()
    assert saved is not None
    assert saved.step == 1


def save_and_die(work: Path, fatal: int) -> None:
    """In a child: save a second checkpoint and kill -9 this process at the fatal-th touch of the disk."""
    touches = iter(range(1, 100))

    def dying(own: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if next(touches) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return own(*arguments, **options)

        return call

    os.fsync = dying(os.fsync)  # type: ignore[assignment]
    Path.replace = dying(Path.replace)  # type: ignore[assignment, method-assign]
    Path.unlink = dying(Path.unlink)  # type: ignore[assignment, method-assign]
    Checkpoints(work, "k").save(2, {"a": torch.ones(3)}, {})


@pytest.mark.parametrize(("instant", "step"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2)])
def test_a_kill_at_any_instant_of_a_save_leaves_a_whole_one(tmp_path: Path, instant: int, step: int) -> None:
    Checkpoints(tmp_path, "k").save(1, {"a": torch.zeros(3)}, {})
    child = os.fork()
    if child == 0:
        try:
            save_and_die(tmp_path, instant)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    saved = Checkpoints(tmp_path, "k").load()
    assert saved is not None
    assert saved.step == step
    assert torch.equal(saved.tensors["a"], torch.full((3,), float(step - 1)))
