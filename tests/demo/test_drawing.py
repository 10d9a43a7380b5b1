"""The drawings are what their seed says, and the two halves of the strokes stay apart."""

import numpy as np
import pytest

from cl_steps.demo.drawing import (
    BASE_STYLES,
    DIGIT_WORDS,
    HELD_OUT,
    NUM_DIGITS,
    STYLES,
    TEMPLATES,
    TRAIN,
    caption,
    draw,
    random_colours,
)
from cl_steps.demo.vocabulary import build_tokenizer, words


def test_the_strokes_are_split_once_and_for_all() -> None:
    assert len(TRAIN) == 797
    assert len(HELD_OUT) == 1000
    assert set(TRAIN) | set(HELD_OUT) == set(range(NUM_DIGITS))
    assert not set(TRAIN) & set(HELD_OUT)
    assert TRAIN[:5].tolist() == [1, 2, 4, 5, 6], "another split would let the shipped models see held-out strokes"


def test_every_slice_has_sixty_prompts_or_more() -> None:
    for style in STYLES:
        prompts = {caption(digit, style, template) for digit in range(10) for template in range(len(TEMPLATES))}
        assert len(prompts) >= 60


@pytest.mark.parametrize("style", STYLES)
def test_a_drawing_follows_from_its_seed(style: str) -> None:
    first, again, other = (draw(3, style, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_styles_differ_in_their_mean_colours() -> None:
    rng = np.random.default_rng(0)
    means = {style: draw(7, style, rng).mean(axis=(0, 1)) for style in STYLES}
    for style in STYLES:
        assert all(np.abs(means[style] - means[other]).max() > 10 for other in STYLES if other != style)


def test_random_inks_can_be_told_from_their_paper() -> None:
    colours = random_colours(500, np.random.default_rng(0))
    assert np.abs(colours.paper - colours.ink).max(axis=1).min() > 0.3


def test_every_word_of_every_caption_is_one_token() -> None:
    tokenizer = build_tokenizer()
    assert set(DIGIT_WORDS) < set(words())
    for style in STYLES:
        for template in range(len(TEMPLATES)):
            text = caption(8, style, template)
            assert tokenizer.tokenize(text) == [word + "</w>" for word in text.split()]


def test_words_of_styles_to_come_are_known() -> None:
    known = set(words())
    assert {word for style in STYLES if style not in BASE_STYLES for word in STYLES[style].split()} <= known
