"""The schedulers that the published folders of several families name, with their settings."""

from __future__ import annotations

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}


def flow(shift: float = 1.0, **changes: object) -> FlowMatchEulerDiscreteScheduler:
    """Rectified flow with one shift for all sizes."""
    return FlowMatchEulerDiscreteScheduler(shift=shift, **changes)


def flow_by_size(**changes: object) -> FlowMatchEulerDiscreteScheduler:
    """Rectified flow whose shift depends on the number of tokens, as Flux has it."""
    return flow(3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, **changes)


def flow_qwen() -> FlowMatchEulerDiscreteScheduler:
    """As Qwen-Image has it: by size, and the last step ends a little before the image."""
    return flow(use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02)


def flow_dpm() -> DPMSolverMultistepScheduler:
    """Rectified flow under the name of DPM-Solver, as Sana has it."""
    return DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def flow_unipc(shift: float = 3.0) -> UniPCMultistepScheduler:
    """Rectified flow under the name of UniPC, as Wan has it."""
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def pndm() -> PNDMScheduler:
    """Of Stable Diffusion 1 and 2."""
    return PNDMScheduler(**STABLE, skip_prk_steps=True, set_alpha_to_one=False)


def euler() -> EulerDiscreteScheduler:
    """Of Stable Diffusion XL and Kolors; scales what goes into the network."""
    return EulerDiscreteScheduler(**STABLE, timestep_spacing="leading")


def ancestral() -> EulerAncestralDiscreteScheduler:
    """Of Allegro; draws new noise at each step."""
    return EulerAncestralDiscreteScheduler(**STABLE)


def ddim() -> DDIMScheduler:
    """Of AnimateDiff and Latte."""
    return DDIMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)


def ddim_velocity() -> DDIMScheduler:
    """Predicts the velocity, and its last timestep is noise alone (arXiv 2305.08891)."""
    return DDIMScheduler(
        **STABLE,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def dpm() -> DPMSolverMultistepScheduler:
    """Of PixArt."""
    return DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)


def flow_edm() -> FlowMatchEulerDiscreteScheduler:
    """As Cosmos 2 has it: sigmas up to 80 in the place of times up to one."""
    return flow(use_karras_sigmas=True)
