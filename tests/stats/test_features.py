"""The extractor on small genuine model folders: a CLIP with words, and a DINOv2."""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)

from cl_steps.errors import UsageError
from cl_steps.stats.features import Extractor, _tensor, folder_digest

SIDE = 16


def _tokenizer(folder: Path) -> CLIPTokenizer:
    tokens = [
        "<|startoftext|>",
        "<|endoftext|>",
        *string.ascii_lowercase,
        *(f"{a}</w>" for a in string.ascii_lowercase),
    ]
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps({token: place for place, token in enumerate(tokens)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocab), str(merges), model_max_length=8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer, folder = _tokenizer(tmp_path_factory.mktemp("words")), tmp_path_factory.mktemp("clip")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 1}
    text = {**sizes, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = {**sizes, "image_size": SIDE, "patch_size": 8}
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dino")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=14, patch_size=7)
        Dinov2Model(config).save_pretrained(folder)
    BitImageProcessorPil(size={"shortest_edge": 14}, crop_size={"height": 14, "width": 14}).save_pretrained(folder)
    return folder


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20 + row, 24, 3), dtype=np.uint8)) for row in range(count)]


def test_features_are_unit_vectors_whatever_the_batch(clip: Path) -> None:
    images = pictures(7)
    whole = Extractor(clip, batch_size=32).image_features(images)
    pieces = Extractor(clip, batch_size=2).image_features(images)
    assert (whole.shape, whole.dtype) == ((7, 12), np.float32)
    assert np.linalg.norm(whole, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.allclose(whole, pieces, atol=1e-6)


def test_features_are_those_of_transformers(clip: Path) -> None:
    image = Image.new("RGB", (SIDE, SIDE), (255, 0, 128))
    model = CLIPModel.from_pretrained(clip).eval()
    mean, std = (torch.tensor(values) for values in (CLIPImageProcessorPil.image_mean, CLIPImageProcessorPil.image_std))
    pixels = torch.tensor(np.asarray(image), dtype=torch.float32) / 255
    pixels = ((pixels - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)[0].numpy()
    assert Extractor(clip).image_features([image])[0] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)


def test_texts_agree_with_themselves_in_any_company(clip: Path) -> None:
    extractor = Extractor(clip)
    alone = extractor.text_features(["a red hat"])[0]
    among = extractor.text_features(["cat", "a red hat", "a very long caption that nobody can read whole", "a red hat"])
    assert np.allclose(among[[1, 3]], alone, atol=1e-6)
    assert not np.allclose(among[0], alone, atol=1e-3)


def test_a_model_may_return_its_features_themselves() -> None:
    features = torch.ones(2, 3)
    assert _tensor(features) is features


def test_every_batch_has_the_same_size(clip: Path) -> None:
    extractor, sizes = Extractor(clip), []

    def embed(items: Sequence[int]) -> torch.Tensor:
        sizes.append(len(items))
        return torch.ones(len(items), extractor.num_features)

    assert len(extractor._batched(range(extractor.batch_size + 3), embed)) == extractor.batch_size + 3
    assert sizes == [extractor.batch_size] * 2


def test_agreement_is_the_cosine(clip: Path) -> None:
    extractor, images, texts = Extractor(clip), pictures(3), ["a", "b", "c"]
    cosines = np.diag(extractor.image_features(images) @ extractor.text_features(texts).T)
    assert extractor.agreement(images, texts) == pytest.approx(cosines, abs=1e-6)


def test_a_vision_only_model_gives_features_and_reads_no_text(dino: Path) -> None:
    extractor = Extractor.open(dino)
    assert not extractor.reads_text
    assert extractor.image_features(pictures(3)).shape == (3, 16)
    with pytest.raises(UsageError, match="reads no text"):
        extractor.text_features(["a"])


def test_no_pictures_and_no_texts_give_no_rows(clip: Path) -> None:
    extractor = Extractor(clip)
    assert extractor.image_features([]).shape == extractor.text_features([]).shape == (0, 12)


def test_a_folder_that_is_no_model_is_refused_in_one_sentence(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(UsageError, match=r"no CLIP or vision model"):
        Extractor(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(UsageError, match=r"no CLIP or vision model"):
        Extractor(tmp_path)


def test_pickled_weights_are_not_opened(tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError):
        Extractor(folder)


def test_incomplete_weights_are_refused_rather_than_drawn_at_random(tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="lack 1"):
        Extractor(folder)


def test_the_digest_is_of_contents_and_names(tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip, folder)
    assert folder_digest(folder) == Extractor(clip).digest
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert folder_digest(folder) != folder_digest(clip)
