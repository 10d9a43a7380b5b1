"""What a training step costs: ours, the inner loop of diffusers' own script, and summed weights, in turns.

python tests/benchmarks/step.py [--sizes 1,13,80] [--targets attention,all] [--batch 4] [--rounds 20] [--threads 1]

Each round does one step of each, so that a busy machine slows all alike. Given are the median and the least seconds of
the wall and of the CPU, the ratio of the CPU's medians to diffusers', and the bytes kept for the backward pass. The
scoreboard gets our ratio.

ours        `Learner.advance` without replay: the plan, a side branch on each layer, clipping, fused AdamW, the average
diffusers   train_text_to_image_lora.py of diffusers (`beside`); its images and captions are given as encoded as ours
summed      W + s B A formed anew for each step (`torch.func.functional_call`), then as diffusers, its AdamW fused
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.func import functional_call
from transformers import CLIPTextConfig, CLIPTextModel

from cl_steps.config import Compute, Lora
from cl_steps.learning.methods.method import STUDENT
from cl_steps.models.model import Denoiser, open_denoiser
from tests.benchmarks.beside import Loss, Step, add_peft, encoded, latents_of, noise_loss, ours, theirs
from tests.benchmarks.scoreboard import Scoreboard, busy, this_machine
from tests.tiny import tiny_tokenizer

DEMO = Path(__file__).parents[2] / "cl_steps" / "demo" / "base"
RANK, ALPHA, TOKENS = 16, 64, 16
CROSS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
WIDTHS = {"13": (64, 128, 256), "80": (160, 320, 640)}
"""Millions of parameters, about: block_out_channels of a UNet for latents of 16x16; `1` is the demo's, 8x8."""
TARGETS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "all": (
        *("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
        *("conv1", "conv2", "conv_shortcut", "time_emb_proj"),
    ),
}


def open_base(size: str, threads: int) -> Denoiser:
    """A frozen base of about `size` million parameters."""
    compute = Compute(device="cpu", threads=threads)
    if size not in WIDTHS:
        return open_denoiser(DEMO, compute)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        _pipeline(WIDTHS[size]).save_pretrained(folder)
        return open_denoiser(folder, compute)


def _pipeline(widths: tuple[int, ...]) -> StableDiffusionPipeline:
    tokenizer, dim = tiny_tokenizer(), 4 * widths[0]
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=dim, num_hidden_layers=1, max_position_embeddings=TOKENS,
        intermediate_size=dim, num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=widths, layers_per_block=1, cross_attention_dim=dim,
        down_block_types=(CROSS[0], CROSS[0], "DownBlock2D"), up_block_types=("UpBlock2D", CROSS[1], CROSS[1]),
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(4, 8), down_block_types=["DownEncoderBlock2D"] * 2,
                          up_block_types=["UpDecoderBlock2D"] * 2, norm_num_groups=2, mid_block_add_attention=False),
        text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet, scheduler=DDPMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def our_step(size: str, lora: Lora, batch: int, threads: int) -> Step:
    """A step of this package's."""
    return ours(open_base(size, threads), lora, batch).advance


def their_step(size: str, lora: Lora, batch: int, threads: int) -> Step:
    """A step of diffusers' script."""
    denoiser = open_base(size, threads)
    unet = denoiser.pipeline.unet
    parameters = add_peft(unet, lora)
    return theirs(_loss(denoiser, batch, lambda *inputs: unet(*inputs, return_dict=False)[0]), parameters)


def summed_step(size: str, lora: Lora, batch: int, threads: int) -> Step:
    """A step that forms the weights with the adapter in them."""
    denoiser = open_base(size, threads)
    unet = denoiser.pipeline.unet
    denoiser.adapters.add_fresh(STUDENT, lora, 0)
    named = {key: nn.Parameter(value.clone()) for key, value in denoiser.adapters.weights(STUDENT).items()}
    base = dict(unet.named_parameters())

    def predict(*inputs: Tensor) -> Tensor:
        weights = {}
        for key, down in named.items():
            if ".lora_A." in key:
                name, up = key.removeprefix("unet.").replace(".lora_A", ""), named[key.replace("lora_A", "lora_B")]
                flat = torch.addmm(base[name].flatten(1), up.flatten(1), down.flatten(1), alpha=ALPHA / RANK)
                weights[name] = flat.view_as(base[name])
        return functional_call(unet, weights, inputs, {"return_dict": False})[0]

    parameters = list(named.values())
    return theirs(_loss(denoiser, batch, predict), parameters, torch.optim.AdamW(parameters, 1e-4, fused=True))


def _loss(denoiser: Denoiser, batch: int, predict: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Loss:
    draw = encoded(denoiser, batch, latents_of(denoiser))
    return noise_loss(
        denoiser.pipeline.scheduler.config, draw, lambda noisy, t, told: predict(noisy, t, told["prompt_embeds"])
    )


def kept_bytes(step: Step) -> int:
    """The bytes that a step keeps for its backward pass, each storage once, without weights as they are."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not tensor.is_leaf:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(kept.values())


def measure(steps: dict[str, Step], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds a step of each, one after the other again and again."""
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    kept = {name: kept_bytes(step) for name, step in steps.items()}
    for number in range(rounds):
        for name in sorted(steps, key=lambda name: hash((name, number))):
            began, spent = time.perf_counter(), time.process_time()
            steps[name]()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - spent)
    return {
        name: {
            "wall": statistics.median(wall[name]),
            "wall_min": min(wall[name]),
            "cpu": statistics.median(cpu[name]),
            "cpu_min": min(cpu[name]),
            "ratio": statistics.median(cpu[name]) / statistics.median(cpu["diffusers"]),
            "kept": kept[name],
        }
        for name in steps
    }


WAYS = {"ours": our_step, "diffusers": their_step, "summed": summed_step}


def main() -> None:
    """Print a table, and enter our ratios into the scoreboard."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="1,13,80")
    parser.add_argument("--targets", default="attention,all")
    for name, default in (("batch", 4), ("rounds", 20), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    command = f"python tests/benchmarks/step.py --batch {given.batch} --rounds {given.rounds} --threads {given.threads}"
    form = f"CPU s, batch {given.batch}, rank {RANK}, float32, threads: {given.threads}"
    board = Scoreboard(command, this_machine(), ", ".join(part for part in (form, busy()) if part))
    print("size targets   way          wall s    least    CPU s    least   ratio   kept MiB")
    for size in given.sizes.split(","):
        for targets in given.targets.split(","):
            lora = Lora(rank=RANK, alpha=ALPHA, target_modules=TARGETS[targets])
            steps = {name: way(size, lora, given.batch, given.threads) for name, way in WAYS.items()}
            rows = measure(steps, given.rounds)
            for name, row in rows.items():
                figures = "".join(f"{row[key]:9.4f}" for key in ("wall", "wall_min", "cpu", "cpu_min"))
                print(
                    f"{size:>4} {targets:<9} {name:<10}{figures} {row['ratio']:7.3f} {row['kept'] / 2**20:10.1f}",
                    flush=True,
                )
            name = f"models/a step of LoRA, UNet of {size} M parameters, {targets} layers: ours / diffusers"
            board.record(name, rows["ours"]["ratio"], goal="<= 1")


if __name__ == "__main__":
    main()
