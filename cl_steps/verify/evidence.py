"""Everything on main that a verification looks at, read once: history, records, events, tags, states."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from cl_steps.ledger.names import numbers_of, version_file
from cl_steps.ledger.record import Record
from cl_steps.ledger.schemas import record_fault
from cl_steps.pipeline import STATE
from cl_steps.repository.git import remote_refs
from cl_steps.repository.history import Commit, contents, history
from cl_steps.repository.mainline import Mainline
from cl_steps.store.pointers import read_dvc_file
from cl_steps.verify.authenticity import Trust

TAGS = "refs/tags/"
FOLDERS = ("events", "versions", "data", "state")


@dataclass(frozen=True)
class Version:
    """A version as main holds it: its record (None where its shape is wrong), in bytes too, and its commit."""

    number: int
    content: bytes
    record: Record | None
    fault: str | None
    commit: Commit

    @property
    def name(self) -> str:
        """Such as `v7`."""
        return f"v{self.number}"

    @property
    def path(self) -> str:
        """Where its record lies."""
        return version_file(self.name)


@dataclass(frozen=True)
class Evidence:
    """Main's tip and its history; `files` are those of events/, versions/, data/ and state/, by path."""

    main: Mainline
    trust: Trust | None
    commits: list[Commit]
    files: Mapping[str, bytes]
    tags: Mapping[str, str]

    @classmethod
    def read(cls, main: Mainline, trust: Trust | None) -> Evidence:
        """Read all of it; raises Unavailable."""
        commits = history(main, *FOLDERS)
        files = {
            f"{folder}/{name}": content for folder in FOLDERS for name, content in main.folder_files(folder).items()
        }
        return cls(main, trust, commits, files, _tags(main.url))

    @cached_property
    def versions(self) -> dict[int, Version]:
        """Every version by its number, the oldest first."""
        names = (path.removeprefix("versions/") for path in self.below("versions", ".json"))
        return {number: self._version(number) for number in numbers_of(names)}

    @cached_property
    def added(self) -> dict[str, int]:
        """The place in history of the commit that added a file first, by path."""
        found: dict[str, int] = {}
        for place, commit in enumerate(self.commits):
            for status, path in commit.changes:
                if status == "A":
                    found.setdefault(path, place)
        return found

    def tracked(self, path: str) -> str | None:
        """The md5 that a `.dvc` file of main's tip names; None where there is no such file, or it names none."""
        return _md5(self.files[path]) if path in self.files else None

    def below(self, folder: str, suffix: str) -> list[str]:
        """The paths in a folder that end so, in their order."""
        return sorted(path for path in self.files if path.startswith(f"{folder}/") and path.endswith(suffix))

    def states(self, versions: Iterable[Version]) -> dict[str, dict[str, str]]:
        """The state's digests at each version's commit and at the one before it, by commit; those that can be read."""
        commits = [commit for version in versions for commit in (version.commit.id, version.commit.before)]
        paths = [f"state/{part}.dvc" for part in STATE]
        found: dict[str, dict[str, str]] = {}
        for (commit, path), content in contents(self.main, ((c, path) for c in commits for path in paths)).items():
            if md5 := _md5(content):
                found.setdefault(commit, {})[path.removeprefix("state/").removesuffix(".dvc")] = md5
        return found

    def _version(self, number: int) -> Version:
        path = version_file(f"v{number}")
        content, commit = self.files[path], self.commits[self.added[path]]
        try:
            document = json.loads(content)
            fault = record_fault(document)
        except (ValueError, RecursionError):
            document, fault = {}, "it is no JSON"
        if not fault and document["version"] != f"v{number}":
            fault = f"it says that it is {document['version']}"
        return Version(number, content, None if fault else Record.from_document(document), fault, commit)


@lru_cache(maxsize=1024)
def _md5(content: bytes) -> str | None:
    """What a `.dvc` file names; most of them are the same from version to version."""
    try:
        return str(read_dvc_file(content)["md5"])
    except Exception:
        return None


def _tags(url: str) -> dict[str, str]:
    """The commit that each tag of a version points at, whatever kind of tag it is."""
    refs = remote_refs(url, f"{TAGS}model@*")
    return {
        name.removeprefix(TAGS): refs.get(f"{name}^{{}}", commit) for name, commit in refs.items() if name[-3:] != "^{}"
    }
