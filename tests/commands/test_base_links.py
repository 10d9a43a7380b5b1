"""Links in a base: those of the hub's cache are followed, one that leads out is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from cl_steps.errors import UsageError
from cl_steps.operations.base import copy_model


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model in the hub's cache: a snapshot of links to blobs."""
    home = tmp_path / "models--x--y"
    snapshot = home / "snapshots" / "abc"
    (home / "blobs").mkdir(parents=True)
    (snapshot / "unet").mkdir(parents=True)
    (home / "blobs" / "one").write_text("{}")
    (snapshot / "unet" / "config.json").symlink_to("../../../blobs/one")
    (snapshot / "model_index.json").symlink_to("unet/config.json")
    (tmp_path / "secret.json").write_text("secret")
    return snapshot


def copied(base: Path, tmp_path: Path) -> dict[str, str]:
    copy_model(base, tmp_path / "copy")
    files = (path for path in (tmp_path / "copy").rglob("*") if path.is_file())
    return {str(path.relative_to(tmp_path / "copy")): path.read_text() for path in files}


def test_a_snapshot_of_the_hub_is_copied(base: Path, tmp_path: Path) -> None:
    (base / "gone.json").symlink_to("nowhere")
    (base / "weights.bin").symlink_to(tmp_path / "secret.json")
    assert copied(base, tmp_path) == {"model_index.json": "{}", "unet/config.json": "{}"}


@pytest.mark.parametrize("target", ["secret.json", "models--x--y/blobs/../../secret.json"])
def test_a_link_that_leads_out_is_not_followed(base: Path, tmp_path: Path, target: str) -> None:
    (base / "unet" / "extra.json").symlink_to(tmp_path / target)
    with pytest.raises(UsageError, match=r"unet/extra.json is a link that leads out"):
        copied(base, tmp_path)
    assert not list((tmp_path / "copy").rglob("extra.json"))


def test_a_folder_that_leads_out_is_not_followed(base: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (base / "vae").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="vae is a link that leads out"):
        copied(base, tmp_path)


def test_of_a_plain_folder_the_blobs_beside_it_are_not_its_own(base: Path, tmp_path: Path) -> None:
    plain = base.parents[1] / "plain"
    plain.mkdir()
    (plain / "config.json").symlink_to("../blobs/one")
    with pytest.raises(UsageError, match="leads out"):
        copied(plain, tmp_path)
