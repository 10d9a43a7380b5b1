"""A signed line of three versions, made once and copied, and the hands of somebody who changes what is for ever."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cl_steps.commands.answer import refuse
from cl_steps.digests import sha256
from cl_steps.documents import json_text
from cl_steps.ledger.names import tag_of
from cl_steps.ledger.record import Record
from cl_steps.records.builders import now
from cl_steps.records.signer import sign_statement, signer_of, version_files
from cl_steps.repository.git import git, text
from cl_steps.repository.line import Line, local
from cl_steps.repository.mainline import Change, reading
from cl_steps.steps import close, promote
from cl_steps.store.pointers import lock_outs, read_dvc_file
from cl_steps.verify.authenticity import Trust
from cl_steps.verify.findings import Verification
from cl_steps.verify.judging import LINK, found_in
from cl_steps.verify.verification import verify
from tests.lasting import documents, read_json
from tests.lines.small import GOOD, keyed, make_workspace, play
from tests.once import made_once

FILES = {
    "record": ("versions/v0002", "2.json"),
    "signature": ("versions/v0002", ".sig"),
    "provenance": ("versions/v0002", "o.json"),
    "event": ("events/", "run-r-150.json"),
    "answer": ("events/", "answer-r-150.json"),
    "an answer's signature": ("events/", "answer-r-150.sig"),
    "adapter.dvc": ("state/", "/adapter.dvc"),
    "champion": ("state/", "champion.json"),
    "an intake's .dvc": ("data/r-100", ".dvc"),
}
"""Files of main, as `named` finds them: how their paths begin and end."""
Tamper = Callable[[bytes], bytes]
TAMPERS: dict[str, Tamper] = {
    "flipped": lambda content: (
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
    ),
    "cut": lambda content: content[:-1],
}


def line_of_three(folder: Path) -> Line:
    """A signed line of its own in `folder`: v1, v2 by r-100, a person's no to r-150, and v3; nobody's checkout."""
    return _copied(_made(), folder)


def line_about_to_learn(folder: Path) -> Line:
    """The same with the run r-300 under way: its drift was found, and `update` is next."""
    return _copied(_begun(), folder)


def _copied(source: Path, folder: Path) -> Line:
    shutil.copytree(source / ".retain", folder / ".retain")
    (folder / "landing").mkdir()
    line = keyed(local(folder), folder)
    line.save(folder)
    return line


def _begun() -> Path:
    verdicts = {"ingest": "ok", "drift": "drifted"}
    return made_once("begun", lambda folder: play(_copied(_made(), folder), "r-300", verdicts))


def _made() -> Path:
    def make(folder: Path) -> None:
        line = make_workspace(folder, signed=True)
        night(line, "r-100")
        play(line, "r-150", {"ingest": "ok", "drift": "alarming"})
        close.run(line, "r-150")
        refuse("r-150", "poison", "ops", "command line", str(folder))
        add_version(line)
        git(Path(line.git), "gc", "-q")

    return made_once("signed", make)


def night(line: Line, run: str) -> str:
    """A whole night that promotes; returns its version."""
    play(line, run, GOOD)
    with patch.object(promote, "_check_figures", lambda *_: None):
        version = promote.run(line, run)
    close.run(line, run)
    return version


def add_version(line: Line, **facts: object) -> str:
    """A version as a promotion would leave it, of a run that learnt nothing, in no time; `facts` are of its record."""
    with reading(line.git) as main, tempfile.TemporaryDirectory() as scratch:
        before, number = documents(main)[-1], main.numbers()[-1] + 1
        state = {**before["digests"]["state"], "base": before["digests"]["base"]}
        state["extractor"] = before["digests"]["extractor"]
        record = json.loads(json_text(before))
        for dep in [dep for stage in record["stages"].values() for dep in stage["deps"]]:
            dep["md5"] = state.get(dep["path"].removeprefix("state/"), dep["md5"])
        record["digests"]["teacher"] = state["adapter"]
        record |= {"version": f"v{number}", "parent": before["version"], "main": main.tip, "created": now(), **facts}
        (Path(scratch) / "adapter").mkdir()
        shutil.copy(stored(line, "state/adapter.dvc", "bytes"), Path(scratch) / "adapter/bytes")
        record["judged"] = judged(line, record)
        champion = {**read_json(main, "state/champion.json"), "version": f"v{number}"}
        files = version_files(line, Record.from_document(record), Path(scratch) / "adapter")
        files["state/champion.json"] = json_text(champion).encode()
        assert main.push(Change(files, f"promote v{number}\n", tag_of(number)))
        return f"v{number}"


def judged(line: Line, record: Mapping[str, Any]) -> dict[str, str]:
    """What the line's judge signs of the record's stages."""
    signer = signer_of(replace(line, signing_key=line.judge_key))
    assert signer
    reports = {name: sha256(json_text(report).encode()) for name, report in record["reports"].items()}
    found = {}
    for step in ("evaluate", "gate"):
        subjects, materials = found_in(record["stages"], reports, record["begun"]["commit"], step)
        resources = [{"name": name, "digest": digest} for name, digest in materials.items()]
        found[step] = sign_statement(signer, subjects, LINK, {"name": step, "materials": resources}).decode()
    return found


def folder_of(line: Line) -> str:
    """The folder that keeps all of the line."""
    return str(Path(line.git).parents[1])


def seen(line: Line, version: str | None = None) -> Verification:
    """What a verification finds, with the line's own trusted keys."""
    return verify(line, version, Trust.read(line.trusted_keys))


def kinds(found: Verification) -> dict[str, set[str]]:
    """The kinds of the faults that were found, by where."""
    places: dict[str, set[str]] = {}
    for fault in found.faults:
        places.setdefault(fault.where, set()).add(fault.kind)
    return places


def on_main(line: Line, path: str) -> bytes:
    """A file of main's tip."""
    with reading(line.git) as main:
        content = main.read(path)
        assert content is not None, path
        return content


def named(line: Line, prefix: str, suffix: str) -> str:
    """The one file of main's tip whose path begins and ends so."""
    with reading(line.git) as main:
        names = text(main.folder, "ls-tree", "-r", "--name-only", main.tip).splitlines()
    [path] = [name for name in names if name.startswith(prefix) and name.endswith(suffix)]
    return path


def commit(line: Line, files: Mapping[str, bytes | None]) -> None:
    """A commit on main of somebody who may write it."""
    with reading(line.git) as main:
        assert main.push(Change(files, "nothing to see here"))


def rewrite(line: Line, files: Mapping[str, bytes | None]) -> None:
    """Main and its tags written anew, as if those files had always been so."""
    bare = Path(line.git)
    renamed: dict[str, str] = {}
    for old in text(bare, "rev-list", "--reverse", "--first-parent", "main").split():
        renamed[old] = _again(bare, old, renamed.get(text(bare, "rev-parse", f"{old}^@")), files)
    tags = {name: text(bare, "rev-parse", f"{name}^{{commit}}") for name in text(bare, "tag").split()}
    git(bare, "update-ref", "refs/heads/main", renamed[text(bare, "rev-parse", "main")])
    for name, old in tags.items():
        git(bare, "tag", "-f", name, renamed[old])


def _again(bare: Path, old: str, parent: str | None, files: Mapping[str, bytes | None]) -> str:
    index, rows = {"GIT_INDEX_FILE": str(bare / "rewriting")}, []
    git(bare, "read-tree", old, env=index)
    for path in set(text(bare, "ls-tree", "-r", "--name-only", old).splitlines()) & files.keys():
        content = files[path]
        if content is None:
            rows.append(f"0 {'0' * 40}\t{path}\n")
        else:
            blob = git(bare, "hash-object", "-w", "--stdin", stdin=content).decode().strip()
            rows.append(f"100644 {blob}\t{path}\n")
    git(bare, "update-index", "--index-info", stdin="".join(rows).encode(), env=index)
    tree = git(bare, "write-tree", env=index).decode().strip()
    before = git(bare, "cat-file", "commit", old).decode()
    header, _, message = before.partition("\n\n")
    lines = [line for line in header.splitlines() if not line.startswith(("tree ", "parent "))]
    lines = [f"tree {tree}", *([f"parent {parent}"] if parent else []), *lines]
    commit = "\n".join([*lines, "", message]).encode()
    return git(bare, "hash-object", "-t", "commit", "-w", "--stdin", stdin=commit).decode().strip()


def stored(line: Line, path: str, member: str = "") -> Path:
    """The file of the store that holds a `.dvc` file's folder, or an output of v2's night, or one of its members."""
    place = _object(line, _md5_of(line, path))
    if not member:
        return place
    return _object(line, next(e["md5"] for e in json.loads(place.read_bytes()) if e["relpath"] == member))


def _md5_of(line: Line, path: str) -> str:
    if path.endswith(".dvc"):
        return str(read_dvc_file(on_main(line, path))["md5"])
    return str(lock_outs(json.loads(on_main(line, "versions/v0002.json"))["stages"])[path]["md5"])


def overwrite(file: Path, content: bytes) -> None:
    """Write an object, which DVC makes read-only."""
    file.chmod(0o644)
    file.write_bytes(content)


def _object(line: Line, md5: str) -> Path:
    return Path(line.store) / "files/md5" / md5[:2] / md5[2:]
