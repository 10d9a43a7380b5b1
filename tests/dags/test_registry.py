"""`lines.yaml`: what is refused, and in which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cl_steps.errors import UsageError
from cl_steps.lineage.keys import make_keys
from cl_steps.pipeline import STEPS
from dags.profiles import LOCAL
from dags.registry import Entry, read_lines
from dags.runners import runner_of


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
    [
        ("[", "not valid YAML"),
        ("- name: a", "the key `lines`"),
        ("lines: {name: a}", "the key `lines`"),
        ("lines: [a]", r"\(entry 1\) must hold keys"),
        ("lines: [{name: a, workspace: /w}, {name: b}]", r"\(entry 2\).*'workspace'"),
        ("lines: [{name: a, workspace: /w, shedule: null}]", "unknown key 'shedule'"),
        ("lines: [{name: A b, workspace: /w}]", "'name'"),
        ("lines: [{name: audit, workspace: /w}]", "a DAG of all lines is called retain_audit"),
        ("lines: []\nprofiles: {p: {runner: local, nodes: 2}}", "several nodes need the runner `pod`"),
        ("lines: [{name: a, workspace: /w, schedule: daily}]", "five cron fields"),
        ("lines: [{name: a, workspace: /w, timezone: Mars/Base}]", "Europe/Berlin"),
        ("lines: [{name: a, workspace: /w, retries: -1}]", "'retries'"),
        ("lines: [{name: a, workspace: /w, environment: ['A=b']}]", "'environment.0'"),
        ("lines: [{name: a, workspace: /w}, {name: a, workspace: /v}]", "two lines named 'a'"),
        ("lines: []\nmore: 1", "and nothing else"),
        ("lines: []\nprofiles: [a]", "and nothing else"),
        ("lines: []\nprofiles: {p: 1}", r"\(profile p\) must hold keys"),
        ("lines: []\nprofiles: {p: {}}", "needs an image"),
        ("lines: []\nprofiles: {p: {image: i, gpu: 1}}", "unknown key 'gpu'"),
        ("lines: []\nprofiles: {p: {image: i, scratch: 20 GB}}", "'scratch'"),
        ("lines: [{name: a, workspace: /w, profile: p}]", "wants the profile 'p', and there are local"),
        ("profiles: {p: {image: i}}\nlines: [{name: a, workspace: /w, profile: p}]", "needs a Git URL"),
        ("lines: [{name: a, workspace: /w, schedule: '*/5 * * * *', jitter_minutes: 3}]", "a fixed minute"),
        ("lines: [{name: a, workspace: /w, schedule: '50 23 * * *', jitter_minutes: 30}]", "into the next day"),
        ("lines: [{name: a, workspace: /w, notify: [{notifier: Mail}]}]", "'notify.0.notifier'"),
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
