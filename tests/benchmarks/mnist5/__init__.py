"""Five tasks of digits, learnt one after the other: what each method forgets, by this package's own learner.

    python -m tests.benchmarks.mnist5 --data FOLDER [--form cpu|gpu|full] [--rows ...] [--seeds 0 1 2] [--out FOLDER]

The setting of "Avoid Catastrophic Forgetting with Rank-1 Fisher from Diffusion Models" (arXiv 2509.23593): a network
that draws digits by class learns {0, 1}, then {2, 3}, and so on, and is asked for all ten in the end. Every row has the
moving average, fresh noise and the rate's decay, joint training included, so that no row wins by them.

    settings    what `settings.yaml` says: the forms, the rows, the trials      digits    the pictures
    authors     the second student pass of the paper's own distillation         nets      what pictures are compared by
    scores      the distances                                                   runs      a row and seed, task by task
    trials      which choice of a row's knobs, on held-out training pictures    table     Markdown, plot, scoreboard
    cost        what a step of each row costs beside a plain one
"""
