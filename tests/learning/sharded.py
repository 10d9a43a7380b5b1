"""What each of two processes does in `test_sharded`: steps with the base whole and with a share of it, side by side.

    python -m torch.distributed.run --standalone --nproc-per-node=2 -m tests.learning.sharded OUT FOLDER...

OUT/<rank>.json says for each base how far apart the students end, and which part of the network's weights it held.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from cl_steps.config import Compute, Lora, Update
from cl_steps.learning.learner import Learner
from cl_steps.learning.methods.catalogue import Methods
from cl_steps.learning.methods.method import STUDENT, TEACHER
from cl_steps.learning.pools import Pool, Pools
from cl_steps.learning.processes import Group, joined
from cl_steps.models.model import Denoiser, open_denoiser
from cl_steps.models.placing import weights

STEPS = 2
UPDATE = Update(
    steps=STEPS,
    batch_size=8,
    learning_rate=5e-2,
    base_learning_rate=1e-1,
    checkpoint_every=4,
    lora=Lora(rank=2, alpha=4),
)


def pool(seed: int, count: int, denoiser: Denoiser) -> Pool:
    """Captions of many lengths: of some pipelines their conditions have as many shapes."""
    latents = torch.randn((count, *denoiser.latent_shape), generator=torch.Generator().manual_seed(seed))
    texts = tuple("seven red dice"[: 3 + 2 * place] for place in range(count))
    return Pool(latents, texts, ("a",) * count, (denoiser.size,) * count)


def learnt(folder: Path, group: Group, *, shard: bool, checkpointing: bool) -> tuple[Tensor, int]:
    """The student after a few steps, and how many of the network's weights this process held meanwhile."""
    compute = Compute(device="cpu", threads=1, shard=shard, checkpointing=checkpointing)
    denoiser = open_denoiser(folder, compute)
    [network] = denoiser.family.watcher.networks.values()
    for name in (TEACHER, STUDENT):
        denoiser.adapters.add_fresh(name, UPDATE.lora, seed=0)
    pools = Pools(*(pool(seed, 5, denoiser) for seed in (1, 2)))
    methods = Methods.of(UPDATE)
    learner = Learner(denoiser, pools, UPDATE, seed=0, methods=methods, processes=group, in_step=shard)
    for _ in range(STEPS):
        learner.advance()
    held = sum(getattr(weight, "_local_tensor", weight).numel() for _, weight in weights(network))
    return learner.student.detach(), held


def main() -> None:
    """All bases; those with a share compute blocks again, too."""
    out, *folders = map(Path, sys.argv[1:])
    found = {}
    with joined(torch.device("cpu")) as group:
        for folder in folders:
            whole, all_of_it = learnt(folder, group, shard=False, checkpointing=False)
            shared, held = learnt(folder, group, shard=True, checkpointing=True)
            found[folder.name] = {"apart": float((shared - whole).abs().max()), "held": held / all_of_it}
    (out / f"{group.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
