"""A workspace of before: its format, its stages and its keys become today's once, and what is its owner's stays."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cl_steps import config
from cl_steps.commands import migrate as command
from cl_steps.commands.migrate import MIGRATIONS, Migration, migrate
from cl_steps.commands.status import status
from cl_steps.commands.verify import verify
from cl_steps.config import FORMAT, RunSpec, load_params
from cl_steps.documents import json_text
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.operations.stages import EARLIER, template
from cl_steps.records import keys as module
from cl_steps.records.keys import JUDGE, TRUSTED, load_private, load_public, read_trusted
from cl_steps.repository.git import remote_refs, text
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import Change, Mainline, reading
from cl_steps.repository.run_branch import open_run
from cl_steps.steps import promote
from cl_steps.verify.judging import believed
from tests.lasting import documents
from tests.lines.small import make_workspace, with_keys
from tests.promoting import play as play_through
from tests.promoting import ready


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
    for place in (command, config):
        monkeypatch.setattr(place, "FORMAT", 3)


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


SHIPPED = """\
    desc: validate what landed, set the unusable aside with a reason, split the rest and write it as shards
    cmd: retain step ingest
    deps: [landing, events, state/reference]
    params: [seed, ingest, run.yaml: ]
    outs: [tonight/intake, tonight/batch]
    metrics: [reports/ingest.json: {cache: false}]
"""
"""The stage that the first release wrote into a new workspace."""
TODAY = template("dvc.yaml").read_text(encoding="utf-8")
INGEST = TODAY[TODAY.index("    desc: validate") : TODAY.index("  drift:")]
OLD = TODAY.replace(INGEST, SHIPPED)
OWN = "  # after all\n  notify:\n    cmd: echo done # 'x'\n    deps: [reports/gate.json]\n"


@pytest.mark.parametrize("content", [OLD, OLD + OWN, OLD.replace("  drift:", OWN + "  drift:"), "# mine\n\n" + OLD])
def test_an_older_dvc_yaml_gets_todays_stages_and_keeps_its_owners_words(line: Line, content: str) -> None:
    put(line, {"dvc.yaml": content.encode()})
    folder = folder_of(line)
    assert migrate(str(folder)) == "dvc.yaml has today's stage ingest"
    assert (folder / "dvc.yaml").read_text() == content.replace(SHIPPED, INGEST)
    assert text(Path(line.git), "log", "-1", "--format=%s", "main") == "dvc.yaml has today's stage ingest"
    tip = remote_refs(line.git)
    assert "nothing to migrate" in migrate(str(folder))
    assert remote_refs(line.git) == tip


@pytest.mark.parametrize(
    "content",
    [
        OLD.replace("retain step ingest", "nice retain step ingest"),
        OLD.replace("deps: [landing, ", "deps: [landing, prices.csv, "),
        yaml.safe_dump(yaml.safe_load(OLD), default_flow_style=True),
        TODAY.replace("always_changed: true", "frozen: true"),
        TODAY.replace(f"  ingest:\n{INGEST}", ""),
    ],
    ids=["another command", "a dependency more", "all in one line", "frozen", "gone"],
)
def test_a_stage_that_its_owner_changed_is_named_and_stays(line: Line, content: str) -> None:
    put(line, {"dvc.yaml": content.encode()})
    for _ in range(2):
        said = migrate(str(folder_of(line)))
        assert "nothing to migrate. dvc.yaml has stage ingest not as it was shipped, and that stays" in said
    assert (folder_of(line) / "dvc.yaml").read_text() == content


def test_who_changes_a_shipped_stage_keeps_what_it_was() -> None:
    """Where this fails, put the stage as it was into `stages.EARLIER`, so that `retain migrate` knows it; then this."""
    stages = json.dumps(yaml.safe_load(TODAY)["stages"], sort_keys=True)
    assert hashlib.sha256(stages.encode()).hexdigest()[:12] == "0b42c0a161fb"


def test_the_earlier_stages_are_those_of_the_pipeline_and_none_is_todays() -> None:
    stages = yaml.safe_load(TODAY)["stages"]
    assert EARLIER.keys() <= stages.keys()
    assert all(stages[name] not in before for name, before in EARLIER.items())


def before_judges(folder: Path) -> Line:
    """A line of a release in which evaluate and gate signed nothing, with versions of its own."""
    line = make_workspace(folder, signed=True)
    keys = Path(line.trusted_keys).parent
    (keys / JUDGE).unlink()
    (keys / "retain-judge-1.pem").unlink()
    entry = yaml.safe_load((keys / TRUSTED).read_text())["keys"][0]
    (keys / TRUSTED).write_text(yaml.safe_dump({"keys": [{k: v for k, v in entry.items() if k != "role"}]}))
    old = replace(line, judge_key="")
    old.save(folder)
    return old


def test_a_line_of_before_the_judge_gets_its_key_and_its_records_go_on_verifying(tmp_path: Path) -> None:
    folder = tmp_path / "line"
    line = before_judges(folder)
    signing, before = Path(line.signing_key).read_bytes(), verify("champion", True, None, str(folder), False)
    with pytest.raises(UsageError, match="`retain migrate` makes one"):
        believed(line)
    assert "runs of" in migrate(str(folder))
    line = resolve(str(folder))
    assert Path(line.judge_key).name == JUDGE
    assert json.loads((folder / ".retain/line.json").read_text())["judge_key"] == "./.retain/keys/judge.pem"
    assert Path(line.signing_key).read_bytes() == signing
    found = {key.name: (key.role, key.until) for key in read_trusted(Path(line.trusted_keys)).keys}
    assert found == {"retain-1": ("trusted", None), "retain-judge-1": ("judge", None)}
    assert verify("champion", True, None, str(folder), False) == before
    assert "nothing to migrate" in migrate(str(folder))
    play_through(line, "r-1")
    assert promote.run(line, "r-1") == "v2"
    assert "all as it should be" in str(verify("champion", True, None, str(folder), False))


def test_versions_of_before_there_were_any_keys_go_on_verifying(tmp_path: Path) -> None:
    """Nobody signed what was found of v2, and nobody could; what is promoted from then on is another matter."""
    folder = tmp_path / "line"
    assert promote.run(ready(folder, signed=False), "r-1") == "v2"
    time.sleep(1)  # Moments are whole seconds: the keys are younger than the version.
    line = with_keys(resolve(str(folder)), folder)
    line.save(folder)
    said = str(verify("champion", True, None, str(folder), False))
    assert "note: unsigned: v2 gate: it was judged before the first trusted key of a judge" in said
    assert "all as it should be" in said
    play_through(line, "r-2")
    assert promote.run(line, "r-2") == "v3"
    with reading(line.git) as main:
        record = {**documents(main)[-1], "judged": {}}
    put(line, {"versions/v0003.json": json_text(record).encode()})
    with pytest.raises(IntegrityError, match="v3"):
        verify("v3", False, None, str(folder), False)


@pytest.mark.parametrize("part", [JUDGE, TRUSTED])
def test_a_judges_key_that_was_half_made_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    folder = tmp_path / "line"
    before_judges(folder)
    write = module._write

    def killed(file: Path, content: bytes, mode: int) -> None:
        if file.name == part:
            raise KeyboardInterrupt
        write(file, content, mode)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            migrate(str(folder))
    migrate(str(folder))
    line = resolve(str(folder))
    [judge] = [key for key in read_trusted(Path(line.trusted_keys)).keys if key.role == "judge"]
    public = load_public(Path(line.trusted_keys).with_name(str(judge.file)))
    assert load_private(Path(line.judge_key)).public_key() == public


@pytest.mark.parametrize("where", ["", "elsewhere", "sigstore"])
def test_who_has_no_key_at_hand_is_told_who_must_do_it(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "line"
    line = before_judges(folder)
    kept = Path(line.signing_key).rename(tmp_path / "signing.pem") if where == "elsewhere" else where
    replace(line, signing_key=str(kept)).save(folder)
    with pytest.raises(UsageError, match="whoever keeps the folder of the line's keys gives this command there"):
        migrate(str(folder))


def test_the_keys_of_a_line_that_is_given_by_its_url_are_those_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = before_judges(tmp_path / "line")
    for name in ("trusted_keys", "signing_key"):
        monkeypatch.setenv(f"RETAIN_{name.upper()}", getattr(line, name))
    monkeypatch.setenv("RETAIN_STORE_URL", line.store)
    assert migrate(line.git).startswith("whatever else runs evaluate and gate needs")
    assert "nothing to migrate" in migrate(line.git)


def test_a_line_without_keys_gets_none(line: Line) -> None:
    assert "nothing to migrate" in migrate(str(folder_of(line)))
    assert resolve(str(folder_of(line))).judge_key == ""
