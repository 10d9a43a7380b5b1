"""Captions as embeddings: what most pipelines take in place of a text."""

from __future__ import annotations

import torch

from tests.models.zoo.tiny import listed, mask, rows

TOKENS = 6
WIDTH = 16


def text(number: int) -> dict[str, object]:
    """Embeddings alone."""
    return {"prompt_embeds": rows(number, TOKENS, WIDTH)}


def pooled_text(number: int) -> dict[str, object]:
    """Embeddings, and one more for the whole caption."""
    return text(number) | {"pooled_prompt_embeds": rows(number, WIDTH, seed=1)}


def masked_text(number: int) -> dict[str, object]:
    """Embeddings, and which of them count."""
    return text(number) | {"prompt_attention_mask": mask(number, TOKENS)}


def qwen_text(number: int) -> dict[str, object]:
    """The same as Qwen-Image and its followers name it."""
    return text(number) | {"prompt_embeds_mask": mask(number, TOKENS)}


def added_text(number: int) -> dict[str, object]:
    """The same for attention that adds its mask."""
    return text(number) | {"prompt_attention_mask": mask(number, TOKENS, torch.float32)}


def listed_text(number: int) -> dict[str, object]:
    """One embedding a caption, each as long as its caption."""
    return {"prompt_embeds": [row[: TOKENS - place % 2] for place, row in enumerate(listed(number, TOKENS, WIDTH))]}
