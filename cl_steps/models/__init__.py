"""A pipeline of diffusers: what does the loop need of it?

Ways in: `model.open_denoiser` (encode, noise, predict, sample), `proof` (can this base be kept up to date?), `adapters`
(on which layers: `targets`), `lora` (files, those of other tools: `interchange`), `checkpoints`, `single_file` (a base
that is one file). How a base lies in memory, `placing` and `quantised` say. How any family serves reads in this order:
`watching` (a call is seen), `family` (what it is), `captions`, `latents`, `schedule`, `direct` and `prediction`. It
knows nothing of learning, of lines or of what the pictures are for.
"""
