"""Who is told that an older main was pushed: people, at once and then once a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cl_steps.orchestration import heads
from tests.dags.test_watch import Variables


def test_people_are_told_at_once_and_then_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    airflows = Variables()
    monkeypatch.setattr(heads, "Variable", airflows)
    values = airflows.values
    values["retain_head_a"] = "abc"
    assert [heads.is_to_tell("a") for _ in range(3)] == [True, False, False]
    assert values["retain_head_a"].startswith("abc "), "where main was stays remembered"
    for hours, again in ((23, False), (25, True)):
        values["retain_head_a"] = f"abc {(datetime.now(UTC) - timedelta(hours=hours)).isoformat()}"
        assert heads.is_to_tell("a") is again
    assert heads.is_to_tell("b") is True
