"""A pipeline of diffusers: what does the loop need of it?

Ways in: `model.open_denoiser` (encode, noise, predict, sample), `adapters` and `lora`, `checkpoints`. It knows
nothing of learning, of lines or of what the pictures are for.
"""
