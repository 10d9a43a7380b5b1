"""A pipeline of diffusers: what does the loop need of it?

Ways in: `model.open_denoiser` (encode, noise, predict, sample), `adapters` (on which layers: `targets`), `lora` (files,
those of other tools: `interchange`), `checkpoints`. It knows nothing of learning, of lines or of what the pictures are
for.
"""
