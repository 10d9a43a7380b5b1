"""What a profile and a line's Secrets may say together."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from cl_steps.orchestration.pods.profiles import LOCAL, Profile, Secrets


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"image": "i", "nodes": 2}, None),
        ({"runner": "local", "nodes": 1}, None),
        ({"runner": "local", "nodes": 2}, "several nodes need the runner `pod`"),
        ({"nodes": 1}, "needs an image"),
        ({"image": "i", "labels": {"team": "a"}}, None),
        ({"image": "i", "labels": {"retain.dev/line": "a"}}, "every pod gets from us"),
    ],
)
def test_several_nodes_are_pods_pods_have_an_image_and_our_names_stay_ours(
    said: dict[str, Any], words: str | None
) -> None:
    if words is None:
        assert Profile(**said).nodes == said.get("nodes", 1)
    else:
        with pytest.raises(ValidationError, match=words):
            Profile(**said)
    assert (LOCAL.runner, LOCAL.image) == ("local", "")


def test_who_trusts_keys_lets_judges_sign() -> None:
    names = {"step": "s", "trusted": "t"}
    assert Secrets(**names).judge == ""  # type: ignore[arg-type]
    assert Secrets(**names, judge="j", trusted_keys="k").judge == "j"  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="name the Secret `judge` too"):
        Secrets(**names, trusted_keys="k")  # type: ignore[arg-type]
