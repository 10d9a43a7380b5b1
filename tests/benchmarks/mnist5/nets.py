"""What pictures are compared by: two small classifiers of digits, of two architectures and seeds, trained once.

    python -m tests.benchmarks.mnist5.nets --data FOLDER [--size 16]

trains them and prints the lines of `NETS`; the weights, in half precision, lie in `nets/` and are checked by SHA-256.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cl_steps.digests import sha256
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.models.tensors import tensor_bytes
from cl_steps.progress import progress
from tests.benchmarks.mnist5.digits import Digits, Pictures, latents, read_digits
from tests.benchmarks.mnist5.settings import CLASSES

FOLDER = Path(__file__).with_name("nets")
EPOCHS, BATCH, RATE, SEED_OF = 8, 128, 4e-3, {"plain": 1, "residual": 2}
WIDTH = 64
"""Features of a picture: what the last layer sees, before its ReLU in `plain`."""


@dataclass(frozen=True)
class Pinned:
    """A trained net: the SHA-256 of its file, and its accuracy on the test pictures."""

    sha256: str
    accuracy: float


NETS: dict[tuple[str, int], Pinned] = {
    ("plain", 16): Pinned("a2fe855b63386ff43b9d39e3838fa4447b34744930be12a8226e1def859040b8", 0.9952),
    ("residual", 16): Pinned("b437223709e858be03ce15cf03756bf75956958f3005851e3823a062e7442630", 0.9937),
}
"""By architecture and size of the pictures in pixels."""


class Plain(nn.Module):
    """Convolutions with strides, and a layer over all that is left of the picture."""

    def __init__(self, size: int) -> None:
        super().__init__()
        widths = ((1, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
        layers = [
            nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b, stride in widths
        ]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (size // 4) ** 2, WIDTH))
        self.head = nn.Linear(WIDTH, len(CLASSES))

    def features(self, x: Tensor) -> Tensor:
        """(N, 64) of (N, 1, h, w)."""
        found: Tensor = self.body(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(N, 10)."""
        found: Tensor = self.head(self.features(x).relu())
        return found


class Block(nn.Module):
    """Two convolutions beside what goes past them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.GELU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of x."""
        return nn.functional.gelu(x + self.inner(x))


class Residual(nn.Module):
    """Wide first filters, residual blocks, and a mean over the picture."""

    def __init__(self, size: int) -> None:
        super().__init__()
        del size
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 5, 2, 2, bias=False), nn.BatchNorm2d(32), nn.GELU(), Block(32),
            nn.Conv2d(32, WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.GELU(), Block(WIDTH),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(WIDTH, len(CLASSES))

    def features(self, x: Tensor) -> Tensor:
        """(N, 64) of (N, 1, h, w)."""
        found: Tensor = self.body(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(N, 10)."""
        found: Tensor = self.head(self.features(x))
        return found


MAKE: dict[str, Callable[[int], Plain | Residual]] = {"plain": Plain, "residual": Residual}


@torch.no_grad()
def seen(net: Plain | Residual, pictures: Pictures) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features (N, 64) and the classes (N,) that a net sees."""
    parts = []
    for begin in range(0, len(pictures), 500):
        x = latents(pictures[begin : begin + 500])
        parts.append((net.features(x).double(), net(x).argmax(dim=1)))
    features, classes = zip(*parts, strict=True)
    return torch.cat(features).numpy(), torch.cat(classes).numpy()


def open_net(name: str, size: int) -> Plain | Residual:
    """A trained net.

    Raises:
        UsageError: there is none for pictures of this size.
        IntegrityError: its file is not the one that the figures were made with.
    """
    if (name, size) not in NETS:
        raise UsageError(f"no net was trained for pictures of {size} x {size}: run tests.benchmarks.mnist5.nets")
    content = file_of(name, size).read_bytes()
    if sha256(content) != NETS[name, size].sha256:
        raise IntegrityError(
            f"{file_of(name, size).name} is not the one that figures are made with: check it out again"
        )
    net = MAKE[name](size)
    net.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in load(content).items()}
    )
    return net.eval()


def file_of(name: str, size: int) -> Path:
    """Where a net's weights lie."""
    return FOLDER / f"{name}-{size}.safetensors"


def train(name: str, digits: Digits, size: int, epochs: int = EPOCHS) -> Plain | Residual:
    """A net that has seen the training pictures, moved by up to a pixel, `epochs` times."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED_OF[name])
        net = MAKE[name](size)
        pictures, labels = digits.parts["train"]
        x, y, count = latents(pictures), torch.from_numpy(labels), len(labels)
        optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-2)
        batches = -(-count // BATCH)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs * batches)
        for _ in progress(range(epochs), epochs, f"{name}: epochs"):
            for rows in torch.randperm(count).split(BATCH):
                moved = torch.roll(x[rows], torch.randint(-1, 2, (2,)).tolist(), dims=(2, 3))
                optimizer.zero_grad()
                cross_entropy(net(moved), y[rows], label_smoothing=0.05).backward()
                optimizer.step()
                rates.step()
    return net.eval()


def main() -> None:
    """Train both, and print what `NETS` says of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path(".mnist5"))
    given = parser.parse_args()
    digits = read_digits(given.data, given.size, given.out)
    FOLDER.mkdir(exist_ok=True)
    for name in MAKE:
        net = train(name, digits, given.size)
        half = {key: value.half() if value.is_floating_point() else value for key, value in net.state_dict().items()}
        content = tensor_bytes(half)
        file_of(name, given.size).write_bytes(content)
        net.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in half.items()})
        pictures, labels = digits.parts["test"]
        accuracy = float((seen(net, pictures)[1] == labels).mean())
        print(f'    ("{name}", {given.size}): Pinned("{sha256(content)}", {accuracy:.4f}),', flush=True)


if __name__ == "__main__":
    main()
