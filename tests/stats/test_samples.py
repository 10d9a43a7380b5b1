"""Pictures that were drawn from a withdrawn asset's words go, and all others stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cl_steps.stats.samples import MODELS, PROMPTS, forget_drawn, grids, slices_drawn

DRAWN = {
    "red": [{"prompt": "a red hat"}, {"prompt": "a hat"}],
    "blue": [{"prompt": "a blue hat"}],
    "../up": [{"prompt": "a red hat"}],
}
CONTENT = json.dumps(DRAWN).encode()


def test_slices_are_found_by_a_prompt_among_the_words() -> None:
    assert slices_drawn(CONTENT, {"a red hat", "another"}) == ["red", "../up"]
    assert slices_drawn(CONTENT, {"red"}) == []
    assert slices_drawn(CONTENT, set()) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b" {}", b'{"a": 1}', b'{"a": [{}]}', b'{"a": ["x"]}', b"\xff{"])
def test_what_is_no_list_of_prompts_names_none(content: bytes) -> None:
    assert slices_drawn(content, {"x"}) == []


def test_what_was_drawn_is_forgotten_and_the_rest_kept(tmp_path: Path) -> None:
    (tmp_path / PROMPTS).write_bytes(CONTENT)
    names = {*grids(["red", "blue"]), "figures.json"}
    assert grids(["red"]) == {f"grid-red-{model}.png" for model in MODELS}
    for name in names:
        (tmp_path / name).touch()
    forget_drawn(tmp_path / PROMPTS, {"nothing of it"})
    assert {path.name for path in tmp_path.iterdir()} == {*names, PROMPTS}
    forget_drawn(tmp_path / PROMPTS, {"a red hat"})
    assert {path.name for path in tmp_path.iterdir()} == {*grids(["blue"]), "figures.json", PROMPTS}
    assert json.loads((tmp_path / PROMPTS).read_bytes()) == {"blue": DRAWN["blue"]}
