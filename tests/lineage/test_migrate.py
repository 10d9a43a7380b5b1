"""A workspace's format: today's is left alone, an older one is migrated once, a newer one is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from cl_steps import config
from cl_steps.commands import migrate as command
from cl_steps.commands.migrate import MIGRATIONS, Migration, migrate
from cl_steps.commands.status import status
from cl_steps.config import FORMAT, RunSpec, load_params
from cl_steps.errors import UsageError
from cl_steps.workspace.branch import open_run
from cl_steps.workspace.git import remote_refs, text
from cl_steps.workspace.line import Line
from cl_steps.workspace.mainline import Change, Mainline, reading
from tests.workspace.conftest import make_workspace


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return make_workspace(tmp_path / "line")


def folder_of(line: Line) -> Path:
    return Path(line.git).parents[1]


def put(line: Line, files: Mapping[str, bytes | None]) -> None:
    with reading(line.git) as main:
        main.swap(lambda: Change(files, "by hand"))


def renamed(main: Mainline) -> Mapping[str, bytes | None]:
    """A made-up migration: a file moves and a knob gets another name."""
    params = (main.read("params.yaml") or b"").replace(b"name: my-line", b"called: my-line")
    return {"params.yaml": params, "run.yaml": None, "moved.yaml": main.read("run.yaml")}


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code whose format is 3."""
    nothing = Migration("nothing else", lambda main: {})
    monkeypatch.setattr(command, "MIGRATIONS", (Migration("a knob is renamed", renamed), nothing))
    for module in (command, config):
        monkeypatch.setattr(module, "FORMAT", 3)


def test_every_format_has_its_migration_and_new_workspaces_are_of_the_last(line: Line) -> None:
    assert len(MIGRATIONS) == FORMAT - 1
    assert load_params(folder_of(line)).format == FORMAT


def test_todays_format_is_left_alone(line: Line) -> None:
    before = remote_refs(line.git)
    assert "nothing to migrate" in migrate(str(folder_of(line)))
    assert remote_refs(line.git) == before


@pytest.mark.usefixtures("newer")
def test_an_older_workspace_is_migrated_once(line: Line) -> None:
    folder = folder_of(line)
    comments = (folder / "params.yaml").read_text().count("#")
    assert "was of 1: a knob is renamed; nothing else" in migrate(str(folder))
    assert text(Path(line.git), "log", "--format=%s", "-n2", "main").splitlines() == [
        "migrate to format 3",
        "migrate to format 2",
    ]
    values = yaml.safe_load((folder / "params.yaml").read_text())
    assert (values["format"], values["called"], "name" in values) == (3, "my-line", False)
    assert (folder / "params.yaml").read_text().count("#") == comments
    assert (folder / "moved.yaml").is_file()
    assert not (folder / "run.yaml").exists()
    with reading(line.git) as main:
        events = [json.loads(c) for n, c in main.folder_files("events").items() if "-migration-" in n]
    assert [(event["from"], event["to"]) for event in events] == [(1, 2), (2, 3)]
    tip = remote_refs(line.git)
    assert "nothing to migrate" in migrate(str(folder))
    assert remote_refs(line.git) == tip


@pytest.mark.usefixtures("newer")
def test_two_at_the_same_time_migrate_once(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    real = command._change

    def late(*arguments: object) -> Change | None:
        with monkeypatch.context() as patch:
            patch.setattr(command, "_change", real)
            migrate(str(folder_of(line)))
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "_change", late)
    migrate(str(folder_of(line)))
    assert text(Path(line.git), "log", "--format=%s", "main").count("migrate to format 2") == 1


@pytest.mark.usefixtures("newer")
def test_commands_say_that_an_older_workspace_must_be_migrated(line: Line) -> None:
    with pytest.raises(UsageError, match="`retain migrate DIR`"):
        open_run(line, RunSpec(id="r-1"))


def test_a_newer_format_is_refused_by_every_command_that_reads_parameters(line: Line) -> None:
    put(line, {"params.yaml": b"format: 2\nnew_knob: 1\n"})
    words = "format 2, and this Retain knows up to 1: install a newer one"
    for call in (
        lambda: migrate(str(folder_of(line))),
        lambda: open_run(line, RunSpec(id="r-1")),
        lambda: status(str(folder_of(line)), json=True),
    ):
        with pytest.raises(UsageError, match=words):
            call()


@pytest.mark.parametrize("content", [b"format: yes please\n", b"- 1\n", b"format: {\n", b"format: -1\n"])
def test_a_file_without_a_format_is_one_clear_sentence(line: Line, content: bytes) -> None:
    put(line, {"params.yaml": content})
    with pytest.raises(UsageError, match=r"main's params\.yaml"):
        migrate(str(folder_of(line)))
