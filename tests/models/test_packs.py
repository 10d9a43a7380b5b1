"""Packs: what is put in is found again, by others too; what is broken or unneeded goes, and nothing stops a night."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cl_steps.errors import Unavailable
from cl_steps.models.packs import Packs
from cl_steps.store.places import Place, open_place


def tensor(seed: int) -> Tensor:
    return torch.randn(64, generator=torch.Generator().manual_seed(seed))


def filled(folder: Path, names: range = range(8), place: Place | None = None) -> Packs:
    """Two names a pack."""
    packs = Packs(folder, place, pack_bytes=2 * 64 * 4)
    for name in names:
        packs[str(name)] = {"latents": tensor(name)}
    packs.flush()
    return packs


def holds(packs: Packs, names: range) -> bool:
    return all(str(name) in packs and torch.equal(packs[str(name)]["latents"], tensor(name)) for name in names)


def test_what_is_put_in_is_there_at_once_and_for_the_next(tmp_path: Path) -> None:
    packs = Packs(tmp_path)
    view = tensor(1).view(8, 8).t()
    packs["a"] = {"x": view, "y/0": tensor(2)[:3].half()}
    assert torch.equal(packs["a"]["x"], view)
    assert list(tmp_path.iterdir()) == []
    packs.flush()
    for found in (packs, Packs(tmp_path)):
        assert "b" not in found
        assert found["a"].keys() == {"x", "y/0"}
        assert torch.equal(found["a"]["x"], view)
        assert found["a"]["y/0"].dtype == torch.float16


def test_packs_are_written_as_they_fill(tmp_path: Path) -> None:
    packs = filled(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    assert holds(packs, range(8))


def test_what_another_process_wrote_is_seen_at_the_next_look(tmp_path: Path) -> None:
    one, other = Packs(tmp_path), filled(tmp_path)
    one.look()
    assert holds(one, range(8))
    assert holds(other, range(8))


def test_a_broken_pack_is_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path)
    spoilt, short, *_ = sorted(tmp_path.iterdir())
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"!")
    short.write_bytes(b"")
    packs = Packs(tmp_path)
    assert sum(str(name) in packs for name in range(8)) == 4
    assert capsys.readouterr().err.count("is not what its name says") == 2
    assert not spoilt.exists()


def test_names_that_nobody_needs_go_with_their_packs(tmp_path: Path) -> None:
    packs = filled(tmp_path)
    packs.only({"0", "1", "2", "7", "nothing"})
    assert holds(packs, range(3))
    assert "7" in packs
    assert not {"4", "5"} & {name for name in map(str, range(8)) if name in packs}
    again = Packs(tmp_path)
    assert holds(again, range(3))
    assert "7" in again
    assert len(list(tmp_path.iterdir())) == 3


def test_of_a_pack_that_goes_what_is_needed_is_written_again(tmp_path: Path) -> None:
    packs = Packs(tmp_path)
    for name in range(8):
        packs[str(name)] = {"latents": tensor(name)}
    packs.flush()
    packs.only({"3"})
    [pack] = tmp_path.iterdir()
    assert pack.stat().st_size < 2 * 64 * 4
    assert torch.equal(Packs(tmp_path)["3"]["latents"], tensor(3))
    assert "2" not in Packs(tmp_path)


def test_a_place_elsewhere_keeps_them_for_another_machine(tmp_path: Path) -> None:
    place = open_place("memory://packs")
    place.write("notes.txt", b"no pack")
    filled(tmp_path / "one", place=place)
    other = Packs(tmp_path / "other", place)
    assert holds(other, range(8))
    other.only({"0", "1"})
    assert len([name for name in place.names() if name.endswith(".safetensors")]) == 1
    place.remove()


def test_a_place_that_is_away_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = open_place("memory://away")

    def fails(*_: object) -> None:
        raise Unavailable("the bucket is away")

    for method in ("names", "put", "delete"):
        monkeypatch.setattr(Place, method, fails if method != "names" else _only_away(Place.names))
    packs = filled(tmp_path, place=place)
    assert holds(packs, range(8))
    said = capsys.readouterr().err
    assert "what was encoded before cannot be had" in said
    assert "is not kept for later nights: the bucket is away" in said


def _only_away(own: object) -> object:
    def names(self: Place) -> list[str]:
        if not self.is_local:
            raise Unavailable("the bucket is away")
        return own(self)  # type: ignore[operator, no-any-return]

    return names
