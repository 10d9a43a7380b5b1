"""What the loop needs of a model family: load, encode, predict, sample, adapters, checkpoints."""
