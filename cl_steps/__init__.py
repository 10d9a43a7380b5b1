"""Retain keeps a generative image model current, night after night, without letting it forget.

`pipeline.py` is the pipeline as data: read it first. The files beside it are its steps, one a file, which only read,
order and write; the folders are the parts they use:

    workspace/   Git is the ledger, DVC the store: events, branches of runs, compare-and-swap on main
    data/        what may come in, duplicates, splits, Parquet shards, the replay buffer
    stats/       drift tests, kernel distances, paired non-inferiority
    diffusion/   load, encode, predict, sample; LoRA adapters; checkpoints
    continual/   distillation and what else keeps a model from forgetting
    report/      the page that people look at
    commands/    what the command line does
    demo/        a small pipeline, ready-made, and the maker of the demo's nights

Imports go one way: dags -> pipeline; __main__ -> commands -> steps -> parts -> workspace, config, errors.
"""
