"""The words that the demonstration's text encoders know, as a genuine `CLIPTokenizer`.

One token a word. Byte-pair merges run from the right, so that every partial token ends its word and the chains of two
words cannot disturb each other. A word that is not listed falls apart into letters.
"""

import json
import string
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer

from cl_steps.demo.drawing import DIGIT_WORDS, PLAIN_TEMPLATES, STYLES, TEMPLATES

MAX_TOKENS = 16
BOUNDARIES = ("<|startoftext|>", "<|endoftext|>")
# Words of styles that nobody has drawn yet: a vocabulary is older than what it will have to describe.
SPARE_WORDS = ("paper", "paint", "board", "red", "green", "violet", "gold", "silver", "pencil", "crayon", "pastel",
               "glowing", "dark", "bright", "thick", "thin", "on", "and", "photo", "outline",
               "watercolour")  # fmt: skip


def words() -> list[str]:
    """Every word of every caption, and the spare ones, in alphabetical order."""
    captions = [*TEMPLATES, *PLAIN_TEMPLATES, *STYLES.values(), *DIGIT_WORDS, *SPARE_WORDS]
    return sorted({word for text in captions for word in text.split() if "{" not in word})


def merges_of(word: str) -> list[tuple[str, str]]:
    """The merges that build a word from its letters, from right to left."""
    right = word[-1] + "</w>"
    merges = []
    for letter in reversed(word[:-1]):
        merges.append((letter, right))
        right = letter + right
    return merges


def build_tokenizer() -> CLIPTokenizer:
    """A tokenizer that pads and cuts to `MAX_TOKENS`."""
    merges = list(dict.fromkeys(merge for word in words() for merge in merges_of(word)))
    letters = [*string.ascii_lowercase, *string.digits, *".,-'"]
    tokens = [*BOUNDARIES, *letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    with tempfile.TemporaryDirectory() as name:
        vocab_path, merges_path = Path(name, "vocab.json"), Path(name, "merges.txt")
        vocab_path.write_text(json.dumps({token: place for place, token in enumerate(dict.fromkeys(tokens))}))
        merges_path.write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
        return CLIPTokenizer(str(vocab_path), str(merges_path), model_max_length=MAX_TOKENS)
