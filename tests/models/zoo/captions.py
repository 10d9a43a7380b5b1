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


def hunyuan_image_text(number: int) -> dict[str, object]:
    """Of two encoders, the second for the letters within a picture."""
    return qwen_text(number) | {
        "prompt_embeds_2": rows(number, TOKENS, WIDTH, seed=1),
        "prompt_embeds_mask_2": mask(number, TOKENS),
    }


def kandinsky5_text(number: int) -> dict[str, object]:
    """Of two encoders, and where each caption of the first begins and ends."""
    return {
        "prompt_embeds_qwen": rows(number, TOKENS, WIDTH),
        "prompt_embeds_clip": rows(number, WIDTH, seed=1),
        "prompt_cu_seqlens": torch.arange(number + 1, dtype=torch.int32) * TOKENS,
    }
