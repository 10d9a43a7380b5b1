"""How much of a caption a base reads: its tokenizers, and what their encoders take; no weights are loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNLIMITED = 10**9


@dataclass(frozen=True)
class Reader:
    """A tokenizer, and how many of its tokens are read."""

    tokenizer: Callable[[str], Any]
    limit: int


def readers_among(parts: Collection[Any], call: Callable[..., Any]) -> list[Reader]:
    """The readers among a pipeline's parts; the pipeline's own call may read less than they do."""
    asked = inspect.signature(call).parameters.get("max_sequence_length")
    most = asked.default if asked and isinstance(asked.default, int) else UNLIMITED
    found = [part for part in parts if hasattr(part, "model_max_length") and callable(part)]
    return [Reader(part, min(int(part.model_max_length), most)) for part in found]


def readers_of(base: Path) -> list[Reader]:
    """Those of a pipeline's folder, whose tokenizers alone are opened; raises UsageError where it is no pipeline."""
    from transformers import AutoTokenizer

    from cl_steps.models.loading import check_index

    call = check_index(base, str(base)).__call__
    folders = sorted(folder for folder in base.glob("tokenizer*") if folder.is_dir())
    return readers_among([AutoTokenizer.from_pretrained(folder, local_files_only=True) for folder in folders], call)


def num_cut(texts: Collection[str], readers: Sequence[Reader]) -> int:
    """How many distinct captions are longer than any of the readers reads: their ends have no say."""
    if not readers:
        return 0
    return sum(all(len(r.tokenizer(text).input_ids) > r.limit for r in readers) for text in set(texts))
