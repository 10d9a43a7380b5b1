"""`lines.yaml`: what is refused, and in which words."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cl_steps.errors import UsageError
from cl_steps.orchestration import registry
from cl_steps.orchestration.pods.profiles import LOCAL
from cl_steps.orchestration.registry import Entry, line_called, read, read_lines
from cl_steps.orchestration.runners import runner_of
from cl_steps.pipeline import STEPS
from cl_steps.records.keys import make_keys


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "lines.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_line_needs_only_a_name_and_a_workspace(tmp_path: Path) -> None:
    [entry] = read_lines(written(tmp_path, "lines: [{name: a, workspace: /w}]"))
    assert (entry.dag_id, entry.schedule, entry.timezone, entry.settings) == ("retain_a", "@daily", "UTC", {})


PODS = """
profiles: {gpu: {image: i, gpu_step: {gpus: 2}}}
lines:
  - {name: a, workspace: 'https://git/a', store: 's3://b/a', profile: gpu, secrets: {step: s, trusted: t}}
  - {name: b, workspace: /w}
"""


def test_a_profile_is_named_and_local_is_always_there(tmp_path: Path) -> None:
    a, b = read_lines(written(tmp_path, PODS))
    assert (a.profile.runner, a.profile.gpu_step.gpus, a.profile.cpu_step.gpus) == ("pod", 2, 0)
    assert b.profile is LOCAL


def test_credentials_are_files_and_reach_this_process_with_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "before")
    (tmp_path / "gitconfig").write_text("", encoding="utf-8")
    entry = Entry(name="a", workspace="https://git/a", store="s3://b/a", credentials=str(tmp_path))
    assert entry.settings == {"RETAIN_STORE_URL": "s3://b/a", "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")}
    entry.line()
    assert os.environ["GIT_CONFIG_GLOBAL"] == str(tmp_path / "gitconfig")
    assert "RETAIN_STORE_URL" not in os.environ


def test_places_become_settings_of_the_steps(tmp_path: Path) -> None:
    text = "lines: [{name: a, workspace: 'https://git/a', store: 's3://b/a', environment: [AWS_PROFILE]}]"
    [entry] = read_lines(written(tmp_path, text))
    assert entry.settings == {"RETAIN_STORE_URL": "s3://b/a"}
    assert entry.line().git == "https://git/a"
    assert entry.environment == ("AWS_PROFILE",)


def test_processes_are_told_whom_to_trust_and_those_that_may_sign_the_key(tmp_path: Path) -> None:
    make_keys(tmp_path, "retain")
    entry = Entry(name="a", workspace="https://git/a", store="s3://b/a", keys=str(tmp_path))
    assert entry.settings == {"RETAIN_STORE_URL": "s3://b/a", "RETAIN_TRUSTED_KEYS": str(tmp_path / "trusted.yaml")}
    assert entry.signing == {"RETAIN_SIGNING_KEY": str(tmp_path / "signing.pem")}
    assert all(Path(file).is_file() for file in (entry.settings["RETAIN_TRUSTED_KEYS"], *entry.signing.values()))
    steps = {step.name: runner_of(entry).task(step, "r") for step in STEPS.values()}
    assert {name for name, task in steps.items() if "RETAIN_SIGNING_KEY" in task.settings} == {"promote"}
    assert {name for name, task in steps.items() if "RETAIN_JUDGE_KEY" in task.settings} == {"evaluate", "gate"}


@pytest.mark.parametrize(
    ("text", "words"),
    [("[", "not valid YAML"), ("- name: a", "the key `lines`"), ("lines: {name: a}", "the key `lines`")],
)
def test_what_is_no_list_of_lines_is_refused_whole(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        read(written(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"lines: [\xff]", b"lines: [{name: a, start: !!timestamp 2026-02-30}]"])
def test_bytes_that_are_no_text_and_days_that_are_none_are_sentences(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lines.yaml").write_bytes(content)
    with pytest.raises(UsageError, match="mend it"):
        read(tmp_path / "lines.yaml")


GOOD = "{name: good, workspace: /srv/line}"
WRONG = [
    ("lines: [GOOD, a]", "", r"\(entry 2\) must hold keys"),
    ("lines: [GOOD, null, [1], 2]", "", r"\(entry 2\) must hold keys"),
    ("lines: [{name: b}, GOOD]", "b", r"\(entry 1\).*'workspace'"),
    ("lines: [GOOD, {name: b, workspace: /w, shedule: null}]", "b", "unknown key 'shedule'"),
    ("lines: [GOOD, {name: A b, workspace: /w}]", "A b", "'name'"),
    ("lines: [GOOD, {name: 7, workspace: /w}]", "", "'name'"),
    ("lines: [GOOD, {name: [b], workspace: /w}]", "", "'name'"),
    ("lines: [GOOD, {name: audit, workspace: /w}]", "audit", "a DAG of all lines is called retain_audit"),
    ("lines: [GOOD, {name: b, workspace: /w, schedule: daily}]", "b", "five cron fields"),
    ("lines: [GOOD, {name: b, workspace: /w, schedule: '99 2 * * *'}]", "b", "no such time"),
    ("lines: [GOOD, {name: b, workspace: /w, timezone: Europe/Berln}]", "b", "Europe/Berlin"),
    ("lines: [GOOD, {name: b, workspace: /w, timezone: 1}]", "b", "'timezone'"),
    ("lines: [GOOD, {name: b, workspace: /w, start: 2026-02-30}]", "b", "'start'"),
    ("lines: [GOOD, {name: b, workspace: /w, retries: -1}]", "b", "'retries'"),
    ("lines: [GOOD, {name: b, workspace: /w, retry_seconds: .inf}]", "b", "'retry_seconds'"),
    ("lines: [GOOD, {name: b, workspace: /w, ask: {hours: .nan}}]", "b", "'ask.hours'"),
    ("lines: [GOOD, {name: b, workspace: /w, environment: ['A=b']}]", "b", "'environment.0'"),
    ("lines: [GOOD, {name: good, workspace: /v}]", "good", r"entry 2\) has the name of entry 1"),
    ("lines: [{name: b}, {name: b, workspace: /v}, GOOD]", "b", r"\(entry 1\).*'workspace'"),
    ("lines: [GOOD]\nmore: 1", "", "remove 'more'"),
    ("lines: [GOOD]\nprofiles: [a]", "", "no names with their settings"),
    ("lines: [GOOD]\nprofiles: {p: 1}", "", r"\(profile p\) must hold keys"),
    ("lines: [GOOD]\nprofiles: {p: {}}", "", "needs an image"),
    ("lines: [GOOD]\nprofiles: {p: {image: i, gpu: 1}}", "", "unknown key 'gpu'"),
    ("lines: [GOOD]\nprofiles: {p: {image: i, scratch: 20 GB}}", "", "'scratch'"),
    ("lines: [GOOD]\nprofiles: {p: {runner: local, nodes: 2}}", "", "several nodes need the runner `pod`"),
    ("lines: [GOOD, {name: b, workspace: /w, profile: p}]", "b", "wants the profile 'p', and there are local"),
    ("lines: [GOOD, {name: b, workspace: /w, profile: [p]}]", "b", "name of one of `profiles`"),
    ("lines: [GOOD, {name: b, workspace: /w, profile: p}]\nprofiles: {p: {}}", "b", "which cannot be read: .*an image"),
    ("lines: [GOOD, {name: b, workspace: /w, profile: p}]\nprofiles: {p: {image: i}}", "b", "needs a Git URL"),
    (
        "lines: [GOOD, {name: b, workspace: /w, schedule: '*/5 * * * *', jitter_minutes: 3}]",
        "b",
        "a fixed minute",
    ),
    (
        "lines: [GOOD, {name: b, workspace: /w, schedule: '50 23 * * *', jitter_minutes: 30}]",
        "b",
        "into the next day",
    ),
    ("lines: [GOOD, {name: b, workspace: /w, notify: [{notifier: Mail}]}]", "b", "'notify.0.notifier'"),
]


@pytest.mark.parametrize(("text", "line", "words"), WRONG, ids=[text[:60] for text, _, _ in WRONG])
def test_what_is_wrong_stops_itself_alone_and_is_said_in_one_sentence(
    tmp_path: Path, text: str, line: str, words: str
) -> None:
    path = written(tmp_path, text.replace("GOOD", GOOD))
    reading = read(path)
    assert [entry.name for entry in reading.entries] == ["good"]
    fault = next(fault for fault in reading.faults if fault.line == line)
    assert re.search(words, fault.sentence)
    assert "\n" not in str(fault)
    assert not line or str(fault).startswith(f"line {line}: ")
    assert line_called("good", path).workspace == "/srv/line"


def test_a_line_that_cannot_be_read_says_why_where_it_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, f"lines: [{GOOD}, {{name: b, workspace: /w, shedule: 1}}]")
    with pytest.raises(UsageError, match=r"line b: .*unknown key 'shedule'"):
        line_called("b", path)
    with pytest.raises(UsageError, match="no line 'c' any more"):
        line_called("c", path)


def test_a_mistake_of_ours_in_one_entry_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(schedule: str) -> None:
        raise ZeroDivisionError(schedule)

    monkeypatch.setattr(registry, "check", check)
    entry = "{name: good, workspace: /srv/line, schedule: null}"
    reading = read(written(tmp_path, f"lines: [{entry}, {{name: b, workspace: /w, schedule: '0 2 * * *'}}]"))
    assert [found.name for found in reading.entries] == ["good"]
    assert "ZeroDivisionError" in str(reading.faults[0])


def test_no_file_is_no_lines_unless_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETAIN_LINES", raising=False)
    assert read_lines(tmp_path / "lines.yaml") == ()
    monkeypatch.setenv("RETAIN_LINES", str(tmp_path / "lines.yaml"))
    with pytest.raises(UsageError, match="which is not there"):
        read_lines(tmp_path / "lines.yaml")
