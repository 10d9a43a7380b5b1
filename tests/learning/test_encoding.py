"""What a base makes of pictures and captions: each once, by whichever process, at its own size, and kept."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from cl_steps.config import Compute
from cl_steps.data.shards import decode, read_assets, write_dataset
from cl_steps.learning.encoding import encoder
from cl_steps.learning.pools import Pool
from cl_steps.learning.processes import ALONE, Alone
from cl_steps.models.model import Denoiser, open_denoiser
from cl_steps.store.places import Place, open_place
from tests.steps.test_update import asset
from tests.tiny import make_tiny_pipeline

WIDE = (30, 20)


@pytest.fixture(scope="module")
def wide_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("wide") / "base", side=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures, every third of them wide, and two probes."""
    pictures = [asset("a", "train", number, WIDE if number % 3 == 0 else (16, 16)) for number in range(12)]
    write_dataset(tmp_path / "data", [*pictures, asset("a", "probe", 20), asset("b", "probe", 21)])
    return tmp_path / "data"


def opened(base: Path) -> Denoiser:
    """A denoiser that has tried with a picture whether it takes wide ones."""
    denoiser = open_denoiser(base, Compute(device="cpu", threads=1))
    denoiser.size_for(WIDE)
    return denoiser


def same(one: Pool, other: Pool) -> bool:
    facts = [(pool.texts, pool.slices, pool.sizes) for pool in (one, other)]
    return facts[0] == facts[1] and all(torch.equal(one.latents[row], other.latents[row]) for row in range(len(one)))


def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[str]]:
    """How many pictures, and which captions, are encoded from now on."""
    images: list[int] = []
    texts: list[str] = []
    own, said = Denoiser.encode_images, Denoiser.keep_prompts

    def encode(self: Denoiser, pictures: Sequence[Image.Image]) -> Tensor:
        images.append(len(pictures))
        return own(self, pictures)

    def keep(self: Denoiser, some: Sequence[str]) -> None:
        texts.extend(some)
        said(self, some)

    monkeypatch.setattr(Denoiser, "encode_images", encode)
    monkeypatch.setattr(Denoiser, "keep_prompts", keep)
    return images, texts


def test_a_pool_holds_each_picture_at_its_size_sorted_by_name(wide_base: Path, folder: Path, tmp_path: Path) -> None:
    denoiser = opened(wide_base)
    train, probe = encoder(denoiser, ALONE, None, tmp_path / "here").pools([(folder, "train"), (folder, "probe")])
    assets = read_assets(folder, "train")
    assert (train.texts, len(probe)) == (tuple(own.text for own in assets), 2)
    assert train.sizes == tuple((40, 24) if own.width == WIDE[0] else (32, 32) for own in assets)
    for place, own in enumerate(assets):
        sized = denoiser.at(train.sizes[place])
        assert torch.equal(train.latents[place], sized.encode_images([decode(own.image, sized.size)])[0])
    denoiser.rest()
    denoiser.pipeline.text_encoder = None
    assert len(denoiser.encode_prompts([*train.texts, *probe.texts, ""])) == 15


@pytest.mark.parametrize("where", ["a folder", "a bucket"])
def test_another_night_encodes_what_is_new_and_lets_go_of_what_is_gone(
    wide_base: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    place = open_place(tmp_path / "work" if where == "a folder" else "memory://encoded")
    [first] = encoder(opened(wide_base), ALONE, place, tmp_path / "one").pools([(folder, "train")])
    denoisers = [opened(wide_base) for _ in range(3)]
    images, texts = counted(monkeypatch)
    [again] = encoder(denoisers[0], ALONE, place, tmp_path / "two").pools([(folder, "train")])
    assert (sum(images), texts) == (0, [])
    assert same(first, again)
    write_dataset(tmp_path / "next", [asset("new", "train", number) for number in range(3)])
    encoder(denoisers[1], ALONE, place, tmp_path / "three").pools([(tmp_path / "next", "train")])
    assert (sum(images), sorted(texts)) == (3, ["new 0", "new 1", "new 2"])
    encoder(denoisers[2], ALONE, place, tmp_path / "four").pools([(folder, "train")])
    assert sum(images) == 3 + 12
    place.remove()


@dataclass
class Node:
    """Processes of one node as threads of this one; only where they meet matters here."""

    rank: int
    size: int
    meet: threading.Barrier

    @property
    def here(self) -> tuple[int, int]:
        return self.rank, self.size

    def any(self, flag: bool) -> bool:
        self.meet.wait()
        return flag

    sum = Alone.sum
    share = Alone.share


def test_processes_encode_a_share_each_and_have_all(wide_base: Path, folder: Path, tmp_path: Path) -> None:
    [alone] = encoder(opened(wide_base), ALONE, None, tmp_path / "alone").pools([(folder, "train")])
    place, meet = open_place("memory://shared"), threading.Barrier(3)
    found: dict[int, Pool] = {}
    own = [opened(wide_base) for _ in range(3)]

    def work(rank: int) -> None:
        made = encoder(own[rank], Node(rank, 3, meet), place, tmp_path / "node")  # type: ignore[arg-type]
        [found[rank]] = made.pools([(folder, "train")])

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(found[rank], alone) for rank in range(3))
    kept = sum(name.endswith(".safetensors") for name in Place.names(place))
    assert kept == 3, "each wrote one pack, and the first kept all"
    place.remove()
