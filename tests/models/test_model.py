"""The denoiser: formulas against diffusers, independence of the batch, refusal of what is no pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from cl_steps.config import Compute, Lora, Serving
from cl_steps.errors import UsageError
from cl_steps.models import model as module
from cl_steps.models.loading import choose_device, load_pipeline
from cl_steps.models.model import Denoiser, open_denoiser
from tests.tiny import TARGET_MODULES, Prediction, disturb, make_tiny_pipeline

SERVING = Serving(num_inference_steps=3, guidance_scale=2.0, negative_prompt="z")


def pictures(count: int) -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return [Image.fromarray(rows) for rows in pixels]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noising_and_targets_are_those_of_diffusers(tmp_path: Path, prediction: Prediction) -> None:
    denoiser = open_denoiser(make_tiny_pipeline(tmp_path / "base", prediction), Compute(device="cpu", threads=1))
    reference = DDPMScheduler.from_config(denoiser.pipeline.scheduler.config)
    random = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn((5, 4, 8, 8), generator=random) for _ in range(2))
    t = torch.tensor([0, 1, 400, 998, 999])
    torch.testing.assert_close(denoiser.schedule.add_noise(x0, noise, t), reference.add_noise(x0, noise, t))
    expected = {"epsilon": noise, "sample": x0, "v_prediction": reference.get_velocity(x0, noise, t)}
    torch.testing.assert_close(denoiser.schedule.target(x0, noise, t), expected[prediction])
    u = torch.tensor([0.0, 0.0011, 0.5, 0.9999], dtype=torch.float64)
    assert denoiser.schedule.at(u).tolist() == [0, 1, 500, 999]


def test_sizes(denoiser: Denoiser) -> None:
    assert denoiser.size == (16, 16)
    assert denoiser.latent_shape == tuple(denoiser.encode_images(pictures(1)).shape[1:]) == (4, 8, 8)
    assert denoiser.encode_images([]).shape == (0, 4, 8, 8)


def test_a_picture_is_worked_with_at_the_size_of_its_shape_that_the_base_takes(tmp_path: Path) -> None:
    denoiser = open_denoiser(make_tiny_pipeline(tmp_path / "base", side=32), Compute(device="cpu", threads=1))
    found = {picture: denoiser.size_for(picture) for picture in ((99, 99), (300, 200), (200, 300), (90, 80))}
    assert found == {(99, 99): (32, 32), (300, 200): (40, 24), (200, 300): (24, 40), (90, 80): (32, 32)}
    wide = denoiser.at((40, 24))
    assert (wide.size, wide.latent_shape) == ((40, 24), (4, 12, 20))
    assert wide.at((40, 24)) is denoiser.at((40, 24)) is wide
    assert wide.at((32, 32)) is denoiser
    denoiser.adapters.add_fresh("default", Lora(rank=2, alpha=4, target_modules=TARGET_MODULES), seed=0)
    assert wide.adapters.names == ("default",)


def test_a_size_that_the_base_does_not_take_is_passed_over_and_refused_where_it_is_asked_for(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert denoiser.size_for((20, 12)) == denoiser.size, "16 x 16 has sizes of multiples of 4, and it takes those of 8"
    with pytest.raises(UsageError, match="takes no pictures of 20 x 12"):
        denoiser.at((20, 12))
    monkeypatch.setattr(module, "resized", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError))
    with pytest.raises(torch.OutOfMemoryError):
        denoiser.at((24, 8))


def test_a_line_that_is_served_at_a_size_works_at_that_alone(tmp_path: Path) -> None:
    base = make_tiny_pipeline(tmp_path / "base", side=32)
    denoiser = open_denoiser(base, Compute(device="cpu", threads=1), Serving(width=24, height=16))
    assert {denoiser.size_for(picture) for picture in ((10, 90), (90, 10), (5, 5))} == {(24, 16)}


def test_a_prediction_that_is_no_number_is_given_and_not_stumbled_over(denoiser: Denoiser) -> None:
    x_t = torch.full((2, *denoiser.latent_shape), torch.nan)
    found = denoiser.predict(x_t, torch.tensor([3, 500]), denoiser.encode_prompts(["a", "b"]), None)
    assert bool(found.isnan().all())


def test_latents_are_scaled_posterior_means_and_independent_of_the_batch(denoiser: Denoiser) -> None:
    images = pictures(3)
    latents = denoiser.encode_images(images)
    assert torch.equal(latents[1:2], denoiser.encode_images(images[1:2]))
    denoiser.encoded_at_once = 2
    torch.testing.assert_close(denoiser.encode_images(images), latents, atol=1e-5, rtol=1e-4)
    assert torch.equal(denoiser.encode_images(images[2:]), denoiser.encode_images(images)[2:])
    pixels = torch.tensor(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        means = denoiser.pipeline.vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(latents, means * denoiser.pipeline.vae.config.scaling_factor, atol=1e-5, rtol=1e-4)


def test_embeddings_are_those_of_the_pipeline_and_kept(denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a b", "", "a b", "a caption with far too many letters"]
    ours = torch.cat([own["prompt_embeds"] for own in denoiser.encode_prompts(texts)])
    theirs = denoiser.pipeline.encode_prompt(texts, torch.device("cpu"), 1, False)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert torch.equal(ours[0], ours[2])
    monkeypatch.setattr(denoiser.pipeline, "text_encoder", None)
    assert torch.equal(torch.cat([own["prompt_embeds"] for own in denoiser.encode_prompts(texts)]), ours)


def test_a_sample_depends_on_its_prompt_and_seed_only(denoiser: Denoiser, lora: Lora) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    disturb(denoiser, "default")
    prompts, seeds = ["a", "b", "c", "a", "a"], [1, 2, 3, 1, 9]
    whole = [np.asarray(image, np.int16) for image in denoiser.sample(prompts, seeds, SERVING, "default")]
    torch.manual_seed(123)
    parts = denoiser.sample(prompts[::-1], seeds[::-1], SERVING, "default", batch_size=2)[::-1]
    for one, other in zip(whole, parts, strict=True):
        assert np.abs(one - np.asarray(other, np.int16)).max() <= 1
    assert np.abs(whole[0] - whole[3]).max() <= 1
    assert np.abs(whole[0] - whole[4]).max() > 10
    base = denoiser.sample(prompts[:1], seeds[:1], SERVING, None)
    assert np.abs(whole[0] - np.asarray(base[0], np.int16)).max() > 1


def test_sampling_and_predicting_leave_the_global_random_state_alone(denoiser: Denoiser, lora: Lora) -> None:
    before = torch.get_rng_state()
    denoiser.adapters.add_fresh("default", lora, seed=0)
    denoiser.sample(["a"], [0], SERVING)
    denoiser.errors(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.tensor([3]), ["a"], "default")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_serving_size_is_used(denoiser: Denoiser) -> None:
    serving = Serving(num_inference_steps=1, guidance_scale=1.0, width=32, height=24)
    assert denoiser.sample(["a"], [0], serving, None)[0].size == (32, 24)


def test_errors_are_each_items_own_mean_square(denoiser: Denoiser) -> None:
    random = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn((5, 4, 8, 8), generator=random) for _ in range(2))
    t, texts = torch.tensor([0, 100, 400, 700, 999]), ["a", "b", "", "c", "a"]
    errors = denoiser.errors(x0, noise, t, texts, None, batch_size=2)
    for row in range(5):
        one = slice(row, row + 1)
        x_t = denoiser.schedule.add_noise(x0[one], noise[one], t[one])
        with torch.no_grad():
            output = denoiser.pipeline.unet(x_t, t[one], denoiser.encode_prompts(texts[one])[0]["prompt_embeds"]).sample
        torch.testing.assert_close(errors[row], (output - noise[one]).square().mean(), atol=1e-6, rtol=1e-5)


def test_what_only_encodes_leaves_the_device_and_what_is_encoded_still_serves(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, t = torch.zeros((1, 4, 8, 8)), torch.tensor([5])
    before = denoiser.predict(x, t, denoiser.encode_prompts(["a"]), None)
    moved: list[tuple[str, object]] = []
    for name in ("unet", "vae", "text_encoder"):
        part = getattr(denoiser.pipeline, name)
        monkeypatch.setattr(part, "to", lambda device, name=name: moved.append((name, device)))
    denoiser.rest()
    assert moved == [("vae", "cpu"), ("text_encoder", "cpu")]
    assert torch.equal(denoiser.predict(x, t, denoiser.encode_prompts(["a"]), None), before)


def test_a_network_that_was_compiled_in_place_predicts_the_same(denoiser: Denoiser) -> None:
    x, t, conditions = torch.ones((1, 4, 8, 8)), torch.tensor([5]), denoiser.encode_prompts(["a"])
    before = denoiser.predict(x, t, conditions, None)
    denoiser.pipeline.unet.compile(backend="eager")
    again = Denoiser(denoiser.pipeline, denoiser.device)
    with torch.no_grad():
        torch.testing.assert_close(again.predict(x, t, conditions, None), before)


def test_half_precision_is_near(base: Path, denoiser: Denoiser) -> None:
    half = open_denoiser(base, Compute(device="cpu", precision="bfloat16", threads=1))
    x = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    arguments = (x, torch.zeros_like(x), torch.tensor([3, 700]), ["a", "b"], None)
    assert half.pipeline.unet.dtype == torch.bfloat16
    assert half.pipeline.vae.dtype == torch.float32
    torch.testing.assert_close(half.errors(*arguments), denoiser.errors(*arguments), atol=0.05, rtol=0.05)
    assert half.sample(["a"], [0], SERVING, None)[0].size == (16, 16)


def change_index(base: Path, folder: Path, key: str, value: object) -> Path:
    shutil.copytree(base, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {key: value}))
    return folder


def test_other_families_and_foreign_code_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'MyPipeline', which diffusers .* has no pipeline of"):
        load_pipeline(change_index(base, tmp_path / "own", "_class_name", "MyPipeline"))
    with pytest.raises(UsageError, match="is a 'UNet2DModel', which"):
        load_pipeline(change_index(base, tmp_path / "part", "_class_name", "UNet2DModel"))
    with pytest.raises(UsageError, match="takes its 'unet' from 'my_code'"):
        load_pipeline(change_index(base, tmp_path / "code", "unet", ["my_code", "Net"]))
    with pytest.raises(UsageError, match="takes its 'extra' from 'os'"):
        load_pipeline(change_index(base, tmp_path / "more", "extra", ["os", "system"]))


def test_what_is_no_pipeline_is_refused_in_one_sentence(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no diffusers pipeline"):
        load_pipeline(tmp_path)
    with pytest.raises(UsageError, match="neither a folder nor a Hugging Face id"):
        load_pipeline(tmp_path / "absent")
    shutil.copytree(base, tmp_path / "torn")
    (tmp_path / "torn/unet/diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    with pytest.raises(UsageError, match="no complete diffusers pipeline"):
        load_pipeline(tmp_path / "torn")


def test_a_base_that_cannot_be_watched_is_refused_with_the_property_that_is_missing(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "edm")
    config = tmp_path / "edm/scheduler/scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "other"}))
    with pytest.raises(
        UsageError, match=r"this base cannot be kept up to date: its scheduler is a .* 'other': neither"
    ):
        open_denoiser(tmp_path / "edm", Compute(device="cpu", threads=1))


def test_pickled_weights_are_refused(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "pickled")
    (tmp_path / "pickled/unet/diffusion_pytorch_model.safetensors").rename(
        tmp_path / "pickled/unet/diffusion_pytorch_model.bin"
    )
    with pytest.raises(UsageError, match=r"has its unet as diffusion_pytorch_model\.bin, a pickle.*save_pretrained"):
        load_pipeline(tmp_path / "pickled")


def test_a_folder_of_the_fp16_variant_loads(base: Path, tmp_path: Path, denoiser: Denoiser) -> None:
    denoiser.pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    assert load_pipeline(tmp_path / "half").unet.dtype == torch.float32


def test_asking_for_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(Compute(device="auto", threads=1)).type == "cpu"
    with pytest.raises(UsageError, match="set it to auto or cpu"):
        choose_device(Compute(device="cuda", threads=1))


@pytest.mark.parametrize(
    "serving",
    [
        SERVING,
        SERVING.model_copy(update={"negative_prompt": ""}),
        SERVING.model_copy(update={"guidance_scale": 6.0}),
        SERVING.model_copy(update={"num_inference_steps": 5}),
    ],
)
def test_a_sample_is_what_diffusers_draws(base: Path, denoiser: Denoiser, serving: Serving) -> None:
    prompts, seeds = ["a b", "c"], [5, 6]
    ours = denoiser.sample(prompts, seeds, serving, None)
    pipeline = load_pipeline(base, torch.device("cpu"))
    theirs = pipeline(
        prompt=prompts,
        negative_prompt=[serving.negative_prompt] * 2,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=serving.num_inference_steps,
        guidance_scale=serving.guidance_scale,
        width=16,
        height=16,
    ).images
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max() <= 1


def test_negative_prompt_and_guidance_change_the_picture(denoiser: Denoiser) -> None:
    """Else the comparison with diffusers would show nothing."""
    drawn = [
        np.asarray(denoiser.sample(["a b"], [5], SERVING.model_copy(update=change), None)[0], np.int16)
        for change in ({}, {"negative_prompt": ""}, {"guidance_scale": 6.0})
    ]
    assert np.abs(drawn[0] - drawn[1]).max() > 1
    assert np.abs(drawn[0] - drawn[2]).max() > 1
