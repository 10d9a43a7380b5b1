"""A line of very many versions, fabricated: one real night, and its commit again and again under other names.

Each version has what a real one has on main (record, event, intake, state, reports) and beside it (tag, branch of its
run). Every folder of bytes is on the store, with one small file.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from cl_steps.commands import prune, status
from cl_steps.config import RunSpec
from cl_steps.ledger.names import tag_of
from cl_steps.pipeline import DRIFT
from cl_steps.report.collect import collect
from cl_steps.repository.git import clone, git, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import open_run
from cl_steps.run.stage import run_stage
from cl_steps.steps import close, promote
from tests.lines.cheap import put_folder, put_run
from tests.lines.small import GOOD, fake_stage, make_workspace

FOLDER = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?=\.dir)")
RECORD_BYTES = 33_000
"""Of a version of the demo's line."""
WHEN = 1_700_000_000


def long_line(folder: Path, versions: int) -> Line:
    """A line whose champion is version `versions`, which is at least 3."""
    line = make_workspace(folder)
    put_run(line, "night-000002", GOOD)
    promote._check_figures = lambda *_: None
    promote.run(line, "night-000002")
    remote = Path(line.git)
    names = text(remote, "diff", "--name-only", "main~1", "main").splitlines()
    template = {name: git(remote, "cat-file", "blob", f"main:{name}") for name in names}
    stream = b"".join(_commits(line, template, versions))
    subprocess.run(["git", "-C", str(remote), "fast-import", "--quiet", "--force"], input=stream, check=True)
    git(remote, "repack", "-a", "-d", "-q")
    return line


def calls(line: Line, scratch: Path) -> dict[str, Callable[[], object]]:
    """What a line's owner and a night do with it, in an order in which it can be done."""
    where, begun = str(Path(line.git).parents[1]), {"ingest": "ok"}
    for run, verdicts in {"night-next": GOOD, "night-lost": GOOD, "night-half": begun}.items():
        put_run(line, run, verdicts)
    return {
        "clone, whole": lambda: git(None, "clone", "-q", "--no-local", line.git, str(scratch / "whole")),
        "clone, as a step": lambda: clone(line.git, scratch / "step", "main"),
        "retain versions": lambda: status.versions(where, json=True),
        "retain runs": lambda: status.runs(where, json=True),
        "retain status": lambda: status.status(where, json=True),
        "retain report, without pictures": lambda: collect(line),
        "open a run": lambda: open_run(line, RunSpec(id="night-open")),
        "a stage that computes nothing": lambda: run_stage(line, "night-half", DRIFT, fake_stage(DRIFT, "drifted")),
        "promote": lambda: promote.run(line, "night-next"),
        "close": lambda: close.run(line, "night-lost"),
        "two lost tags made again": lambda: _mend(line),
        "retain status --remote": lambda: status.status(where, json=True, remote=True),
        "retain prune --dry-run": lambda: prune.prune(where, 0, dry_run=True, json=True),
    }


def _mend(line: Line) -> None:
    with reading(line.git) as main:
        lost = [tag_of(number) for number in (2, max(main.numbers()))]
        git(Path(line.git), "tag", "-d", *lost)
        assert main.mend_tags() == lost


def _commits(line: Line, template: dict[str, bytes], versions: int) -> Iterator[bytes]:
    tip, before = text(Path(line.git), "rev-parse", "main"), _state_before(line)
    own = {part: name for name, part in _folders(template["versions/v0002.json"]).items()}
    standing = {name: own.get(part, name) for name, part in before.items()}
    for number in range(3, versions + 1):
        names = {name.encode(): new.encode() for name, new in standing.items()}
        files = dict(_again(template, number, Path(line.store), names))
        standing |= {name: names[own[part].encode()].decode() for name, part in before.items() if part in own}
        yield _commit("refs/heads/main", f"promote v{number}", tip if number == 3 else "", files, number)
        tag = tag_of(number).encode()
        yield b"tag " + tag + b"\nfrom refs/heads/main\n" + _who(b"tagger", number) + _data(tag)
        run = {"run.yaml": f"id: night-{number:06d}\nstarted: '2026-01-01T00:00:00+00:00'\n".encode()}
        run |= {name: content for name, content in files.items() if name.startswith("reports/")}
        yield _commit(f"refs/heads/runs/night-{number:06d}", f"run {number}", "refs/heads/main", run, number)


def _state_before(line: Line) -> dict[str, str]:
    """The folders of v1's state: what each is called, and the part that it is."""
    with reading(line.git) as main:
        return _folders(main.record_file("v1"), {"base", "extractor"})


def _folders(record: bytes, more: Collection[str] = ()) -> dict[str, str]:
    digests = json.loads(record)["digests"]
    parts = {**digests["state"], **{part: digests[part] for part in more}}
    return {name.removesuffix(".dir"): part for part, name in parts.items()}


def _again(
    template: dict[str, bytes], number: int, store: Path, names: dict[bytes, bytes]
) -> Iterator[tuple[str, bytes]]:
    """The files of the template's version under another number, with other folders of bytes.

    `names` are the folders of the state before, by the template's names of them; those that are new are entered.
    """

    def other(found: re.Match[bytes]) -> bytes:
        if found[0] not in names:
            new = put_folder(store, f"{found[0]!r} of {number}".encode())["md5"]
            names[found[0]] = new.removesuffix(".dir").encode()
        return names[found[0]]

    for name, content in template.items():
        renamed = name.replace("night-000002", f"night-{number:06d}").replace("v0002", f"v{number:04d}")
        if name.startswith("events/"):
            renamed = f"events/2027{number:011d}Z-run-night-{number:06d}.json"
        body = FOLDER.sub(other, content.replace(b"night-000002", f"night-{number:06d}".encode()))
        body = body.replace(b'"v2"', f'"v{number}"'.encode()).replace(b'"v1"', f'"v{number - 1}"'.encode())
        is_record = name.startswith("versions/") and name.endswith(".json") and b'"stages"' in body
        yield renamed, _filled(body, number) if is_record else body


def _filled(record: bytes, number: int) -> bytes:
    """As large as a real one, with numbers that Git cannot make smaller."""
    document, dice = json.loads(record), random.Random(number)
    rest = max(0, RECORD_BYTES - len(record)) // 22
    document["reports"]["evaluate"]["figures"]["rest"] = [dice.random() for _ in range(rest)]
    return json.dumps(document, indent=1, sort_keys=True).encode()


def _commit(ref: str, message: str, parent: str, files: dict[str, bytes], number: int) -> bytes:
    head = f"commit {ref}\n".encode() + _who(b"committer", number) + _data(message.encode())
    head += f"from {parent}\n".encode() if parent else b""
    return head + b"".join(f"M 100644 inline {name}\n".encode() + _data(body) for name, body in files.items())


def _who(role: bytes, number: int) -> bytes:
    return role + f" Retain <retain@localhost> {WHEN + number} +0000\n".encode()


def _data(content: bytes) -> bytes:
    return f"data {len(content)}\n".encode() + content + b"\n"
