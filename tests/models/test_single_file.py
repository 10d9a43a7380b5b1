"""A base that is one file: what is made of it is the pipeline that it was, whatever the file does not hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from cl_steps.errors import Unavailable, UsageError
from cl_steps.models import single_file
from cl_steps.models.loading import load_pipeline
from cl_steps.models.single_file import is_single_file, unpack
from cl_steps.operations.base import take_base
from tests.models.originals import write_original
from tests.models.whole import WHOLE
from tests.models.zoo.autoencoders import kl
from tests.models.zoo.stable import unet
from tests.tiny import WIDTH, make_tiny_pipeline

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline whose network has all that the original's has, a middle block too."""
    folder = make_tiny_pipeline(tmp_path_factory.mktemp("whole") / "base")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        unet(cross_attention_dim=WIDTH).save_pretrained(folder / "unet")
        kl(4).save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="module")
def file(whole: Path) -> Path:
    return write_original(whole.with_name("model.safetensors"), load_pipeline(whole))


@pytest.fixture(scope="module")
def configs(whole: Path) -> Path:
    """The same pipeline without weights, as of a hub's repository the configurations are fetched."""
    folder = shutil.copytree(whole, whole.with_name("configs"))
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    return folder


def assert_same(one: DiffusionPipeline, other: DiffusionPipeline) -> None:
    for name, part in one.components.items():
        if isinstance(part, torch.nn.Module):
            weights = other.components[name].state_dict()
            assert weights.keys() == part.state_dict().keys()
            assert all(torch.equal(weights[key], value) for key, value in part.state_dict().items()), name


def test_a_file_becomes_the_pipeline_that_it_was(
    whole: Path, file: Path, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    def fetch(hub_id: str, allow_patterns: list[str]) -> str:
        asked.append((hub_id, tuple(allow_patterns)))
        return str(configs)

    monkeypatch.setattr(single_file, "snapshot_download", fetch)
    take_base(str(file), tmp_path / "base")
    assert [name for name, _ in asked] == ["stable-diffusion-v1-5/stable-diffusion-v1-5"]
    assert not any("safetensors" in pattern for pattern in asked[0][1]), "all weights are in the file"
    assert_same(load_pipeline(whole), load_pipeline(tmp_path / "base"))
    source = json.loads((tmp_path / "base/source.json").read_text())
    assert source["file"] == "model.safetensors"
    assert len(source["sha256"]) == 64
    take_base(str(file), tmp_path / "again", str(configs))
    kept = sorted(path for path in (tmp_path / "base").rglob("*") if path.is_file())
    assert all(
        (tmp_path / "again" / path.relative_to(tmp_path / "base")).read_bytes() == path.read_bytes() for path in kept
    )
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in kept), "no path of this machine is kept"


def test_what_the_file_does_not_hold_comes_from_a_pipeline_like_it(whole: Path, file: Path, tmp_path: Path) -> None:
    network = {key: 2 * value for key, value in load_file(file).items() if key.startswith("model.")}
    save_file(network, tmp_path / "network.safetensors")
    unpack(tmp_path / "network.safetensors", str(whole), tmp_path / "base")
    made, own = load_pipeline(tmp_path / "base"), load_pipeline(whole)
    assert torch.equal(made.unet.conv_in.weight, 2 * own.unet.conv_in.weight)
    made.unet = own.unet
    assert_same(own, made)


def test_of_the_hub_only_the_weights_that_the_file_lacks_are_fetched(
    whole: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(
        single_file, "snapshot_download", lambda _, allow_patterns: asked.append(allow_patterns) or whole
    )
    kept = {key: value for key, value in load_file(file).items() if not key.startswith("first_stage")}
    save_file(kept, tmp_path / "kept.safetensors")
    unpack(tmp_path / "kept.safetensors", "owner/name", tmp_path / "base")
    assert [pattern for pattern in asked[1] if pattern not in asked[0]] == ["vae/*.safetensors"]


@pytest.mark.parametrize("name", WHOLE)
def test_a_network_alone_under_its_own_names(name: str, tmp_path: Path) -> None:
    WHOLE[name](tmp_path / "like")
    part = "unet" if (tmp_path / "like/unet").is_dir() else "transformer"
    own = load_file(tmp_path / "like" / part / WEIGHTS)
    weights = {key: (2 * value).to(torch.float16) for key, value in own.items()}
    save_file(weights, tmp_path / "model.safetensors")
    unpack(tmp_path / "model.safetensors", str(tmp_path / "like"), tmp_path / "base")
    made = load_file(tmp_path / "base" / part / WEIGHTS)
    assert made.keys() == own.keys()
    assert all(torch.equal(made[key].half(), value) for key, value in weights.items())
    pipeline = load_pipeline(tmp_path / "base")
    assert type(pipeline).__name__ == name


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.pth", "model.bin"])
def test_pickles_are_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no")
    with pytest.raises(UsageError, match=r"is a pickle, which may run code: open it .* as a \.safetensors file"):
        take_base(str(tmp_path / name), tmp_path / "base")


def test_what_is_no_checkpoint_is_refused_in_one_sentence(
    file: Path, whole: Path, configs: Path, tmp_path: Path
) -> None:
    like, target, other = str(whole), tmp_path / "base", tmp_path / "other.safetensors"
    assert not is_single_file("owner/name")
    with pytest.raises(UsageError, match=r"there is no file .*absent\.safetensors: mend its path"):
        take_base(str(tmp_path / "absent.safetensors"), target)
    with pytest.raises(UsageError, match="--like is for a checkpoint of one file"):
        take_base(like, target, like)
    other.write_bytes(b"torn")
    with pytest.raises(UsageError, match="is no whole safetensors file"):
        unpack(other, like, target)
    save_file({"lora_unet_conv_in.lora_down.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(UsageError, match="is no checkpoint of a StableDiffusionPipeline"):
        unpack(other, like, target)
    weights = load_file(file)
    save_file({key: value for key, value in weights.items() if "time_embed.0" not in key}, other)
    with pytest.raises(UsageError, match="it lacks some of the weights of its unet or vae"):
        unpack(other, like, target)
    save_file(weights | {"model.diffusion_model.out.2.scale_weight": torch.ones(1)}, other)
    with pytest.raises(UsageError, match="holds quantised weights, such as 'model"):
        unpack(other, like, target)
    save_file({key: value for key, value in weights.items() if not key.startswith("cond_")}, other)
    with pytest.raises(UsageError, match=r"holds no text_encoder, and .* has none: give a whole pipeline"):
        unpack(other, str(configs), target)
    assert not target.exists()


def test_of_several_networks_one_file_is_not_all(file: Path, whole: Path, tmp_path: Path) -> None:
    like = shutil.copytree(whole, tmp_path / "two")
    index = json.loads((like / "model_index.json").read_text())
    (like / "model_index.json").write_text(json.dumps(index | {"unet_2": index["unet"]}))
    with pytest.raises(UsageError, match="has 2 networks that diffusers reads from one: give the folder"):
        unpack(file, str(like), tmp_path / "base")


def test_where_the_configuration_cannot_be_had_the_sentence_says_how_to_give_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(single_file, "snapshot_download", fetch)
    with pytest.raises(Unavailable, match=r"is in stable-diffusion-v1-5/.*, and cannot be had: .* by --like"):
        unpack(file, None, tmp_path / "base")


def test_the_parts_beside_the_network_are_genuine(whole: Path) -> None:
    """Else the tests above would show nothing."""
    pipeline = load_pipeline(whole)
    assert isinstance(pipeline.unet, UNet2DConditionModel)
    assert isinstance(pipeline.vae, AutoencoderKL)
    assert pipeline.unet.mid_block is not None
