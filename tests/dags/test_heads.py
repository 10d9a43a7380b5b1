"""Who is told that an older main was pushed: people, at once and then once a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from cl_steps.orchestration import heads


def test_people_are_told_at_once_and_then_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"retain_head_a": "abc"}
    airflows = SimpleNamespace(set=lambda name, value, _: values.update({name: value}))
    airflows.get = lambda name, default: values.get(name, default)
    monkeypatch.setattr(heads, "Variable", airflows)
    assert [heads.is_to_tell("a") for _ in range(3)] == [True, False, False]
    assert values["retain_head_a"].startswith("abc "), "where main was stays remembered"
    for hours, again in ((23, False), (25, True)):
        values["retain_head_a"] = f"abc {(datetime.now(UTC) - timedelta(hours=hours)).isoformat()}"
        assert heads.is_to_tell("a") is again
    assert heads.is_to_tell("b") is True
