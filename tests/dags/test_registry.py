"""`lines.yaml`: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from cl_steps.errors import UsageError
from dags.registry import read_lines


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "lines.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_line_needs_only_a_name_and_a_workspace(tmp_path: Path) -> None:
    [entry] = read_lines(written(tmp_path, "lines: [{name: a, workspace: /w}]"))
    assert (entry.dag_id, entry.schedule, entry.timezone, entry.settings) == ("retain_a", "@daily", "UTC", {})


def test_places_become_settings_of_the_steps(tmp_path: Path) -> None:
    text = "lines: [{name: a, workspace: 'https://git/a', store: 's3://b/a', environment: [AWS_PROFILE]}]"
    [entry] = read_lines(written(tmp_path, text))
    assert entry.settings == {"RETAIN_STORE_URL": "s3://b/a"}
    assert entry.line().git == "https://git/a"
    assert entry.environment == ("AWS_PROFILE",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "not valid YAML"),
        ("- name: a", "one key, `lines`"),
        ("lines: {name: a}", "one key, `lines`"),
        ("lines: [a]", r"\(entry 1\) must hold keys"),
        ("lines: [{name: a, workspace: /w}, {name: b}]", r"\(entry 2\).*'workspace'"),
        ("lines: [{name: a, workspace: /w, shedule: null}]", "unknown key 'shedule'"),
        ("lines: [{name: A b, workspace: /w}]", "'name'"),
        ("lines: [{name: a, workspace: /w, schedule: daily}]", "five cron fields"),
        ("lines: [{name: a, workspace: /w, timezone: Mars/Base}]", "Europe/Berlin"),
        ("lines: [{name: a, workspace: /w, retries: -1}]", "'retries'"),
        ("lines: [{name: a, workspace: /w, environment: ['A=b']}]", "'environment.0'"),
        ("lines: [{name: a, workspace: /w}, {name: a, workspace: /v}]", "two lines named 'a'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        read_lines(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_no_file_is_no_lines_unless_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETAIN_LINES", raising=False)
    assert read_lines(tmp_path / "lines.yaml") == ()
    monkeypatch.setenv("RETAIN_LINES", str(tmp_path / "lines.yaml"))
    with pytest.raises(UsageError, match="which is not there"):
        read_lines(tmp_path / "lines.yaml")
