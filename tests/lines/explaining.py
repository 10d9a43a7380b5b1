"""Random lines, written by hand as main and a store would hold them: no step runs, and the truth is kept beside it.

Every dataset of every version is written out whole, so that a test can ask the manifests themselves.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from cl_steps.data.replay import select
from cl_steps.data.shards import MANIFEST_SCHEMA
from cl_steps.documents import write_json
from cl_steps.repository.git import git
from cl_steps.repository.line import Line
from tests.lasting import whole_champion, whole_event, whole_record

CAPACITY = 12
BEGAN = datetime(2026, 1, 1, 2, tzinfo=UTC)
PARTS = {"replay": "manifest.parquet", "global_eval": "manifest.parquet", "reference": "known.parquet"}


@dataclass
class Told:
    """A version as it was written, and the datasets that it was made of."""

    parent: str | None
    record: dict[str, Any]
    batch: pa.Table
    trained: pa.Table
    state: dict[str, pa.Table]


@dataclass
class Fabricated:
    """A line that grows by nights, rollbacks and withdrawals; nothing is on main before `push`."""

    folder: Path
    seed: int = 0
    hostile: str = ""
    moment: datetime = BEGAN
    champion: str = "v1"
    versions: dict[str, Told] = field(default_factory=dict)
    state: dict[str, pa.Table] = field(default_factory=dict)
    tombstones: dict[str, None] = field(default_factory=dict)
    intakes: dict[str, pa.Table] = field(default_factory=dict)
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.root, self.store = self.folder / "tree", self.folder / ".retain/store"
        self.line = Line(str(self.folder / ".retain/git"), str(self.store), "", "")
        git(None, "init", "-q", "-b", "main", str(self.root))
        git(None, "init", "-q", "--bare", "-b", "main", self.line.git)
        (self.root / "params.yaml").write_text(yaml.safe_dump({"name": "made-up", "seed": 0}), encoding="utf-8")
        first = self.rows(9, "init")
        kept = select(first.filter(pc.not_equal(first["split"], "evaluation")), CAPACITY, 0)
        held_out = first.filter(pc.equal(first["split"], "evaluation"))
        self.state = {"replay": kept, "global_eval": held_out, "reference": first}
        self.promote("v1", None, self.rows(0, ""), self.rows(0, ""))

    def rows(self, count: int, run: str) -> pa.Table:
        """New assets, as a manifest."""
        found = []
        for _ in range(count):
            thumbnail = self.random.integers(0, 256, 192, dtype=np.uint8).tobytes()
            name = hashlib.sha256(thumbnail).hexdigest()
            split = str(self.random.choice(["train", "train", "probe", "evaluation"]))
            facts = {"licence": "", "consent": "", "width": 32, "height": 32, "sealed": False, "run": run}
            slice_name = f"slice-{self.random.integers(3)}{self.hostile}"
            facts |= {"slice": slice_name, "split": split, "source": f"studio-{self.random.integers(2)}{self.hostile}"}
            prints = {"dhash": thumbnail[:8], "thumbnail": thumbnail, "group": name}
            found.append({"sha256": name, "text": f"picture {name[:6]}{self.hostile}", **facts, **prints})
        return pa.Table.from_pylist(found, MANIFEST_SCHEMA).sort_by("sha256")

    def put(self, table: pa.Table, name: str = "manifest.parquet", **others: bytes) -> str:
        """Store a dataset; returns its digest."""
        stream = io.BytesIO()
        pq.write_table(table, stream, compression="zstd")
        return self.put_files({name: stream.getvalue(), **{k.replace("__", "."): v for k, v in others.items()}})

    def put_files(self, files: dict[str, bytes]) -> str:
        """Store a folder; returns its digest."""
        listing = [{"md5": self.put_object(content), "relpath": name} for name, content in sorted(files.items())]
        return self.put_object(json.dumps(listing).encode(), ".dir")

    def put_object(self, content: bytes, ending: str = "") -> str:
        name = hashlib.md5(content, usedforsecurity=False).hexdigest() + ending
        path = self.store / "files/md5" / name[:2] / name[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return name

    def night(self, outcome: str = "promoted", count: int = 6, quarantined: str = "") -> str | None:
        """A run that takes in `count` assets; its batch is these and every intake that waits."""
        run = f"r-{len(self.ended) + 1:04d}"
        new = self.rows(count, run)
        self.intakes[run] = new
        row = {"sha256": quarantined, "file": f"bad{self.hostile}.png", "code": "damaged", "reason": "cut", "bytes": 1}
        lines = json.dumps(row).encode() if quarantined else b""
        md5 = self.put(new, quarantine__jsonl=lines)
        learnt = {r for e in self.ended.values() if e["outcome"] == "promoted" for r in e["batch"]["runs"]}
        members = [name for name in self.intakes if name not in learnt]
        batch = self.alive(pa.concat_tables([self.intakes[name] for name in members])).sort_by("sha256")
        version = f"v{len(self.versions) + 1}" if outcome == "promoted" else None
        event = {
            "schema": 2, "kind": "run", "run": run, "outcome": outcome, "why": f"so it was{self.hostile}",
            "version": version, "drift": "drifted", "gate": None, "seconds": 60.0, "base": "0" * 40, "tip": "0" * 40,
            "trigger": {"kind": "schedule", "by": f"ops{self.hostile}", "reason": self.hostile, "set": {}},
            "intake": {"md5": md5, "assets": count, "quarantined": int(bool(quarantined)), "slices": {}},
            "batch": {"runs": members, "assets": batch.num_rows, "digest": "d" * 64, "of": None, "slices": {}},
        }  # fmt: skip
        self.ended[run] = self.write_event(f"run-{run}", event)
        if version:
            trained = self.state["replay"]
            self.learn(batch)
            self.promote(version, run, batch, trained)
        return version

    def enter(self, batch: pa.Table, replay: pa.Table) -> None:
        """A promoted night that took in all of `batch` and left this replay buffer; the rest of the state stays."""
        run, version = f"r-{len(self.ended) + 1:04d}", f"v{len(self.versions) + 1}"
        event = {
            "schema": 2, "kind": "run", "run": run, "outcome": "promoted", "version": version, "seconds": 60.0,
            "intake": {"md5": self.put(batch, quarantine__jsonl=b""), "assets": batch.num_rows, "quarantined": 0},
            "batch": {"runs": [run], "assets": batch.num_rows, "digest": "d" * 64},
        }  # fmt: skip
        self.ended[run] = self.write_event(f"run-{run}", event)
        trained = self.state["replay"]
        self.state = {**self.state, "replay": replay}
        self.promote(version, run, batch, trained)
        self.versions[version] = Told(
            self.versions[version].parent, self.versions[version].record, *[self.rows(0, "")] * 2, {}
        )

    def learn(self, batch: pa.Table) -> None:
        """The state that a promotion of `batch` makes."""
        learnable, held_out = (batch.filter(test(batch["split"], "evaluation")) for test in (pc.not_equal, pc.equal))
        self.state = {
            "replay": select(pa.concat_tables([self.state["replay"], learnable]), CAPACITY, 0),
            "global_eval": pa.concat_tables([self.state["global_eval"], held_out]),
            "reference": pa.concat_tables([self.state["reference"], batch]),
        }

    def promote(self, version: str, run: str | None, batch: pa.Table, trained: pa.Table) -> None:
        """Write the record of a version made of `batch` on the champion."""
        parent = self.champion if run else None
        state = {part: self.put(self.state[part], name) for part, name in PARTS.items()}
        adapter = self.put_files({"weights": version.encode()})
        slices = sorted(set(batch["slice"].to_pylist()))
        splits = {n: {s: self.count(batch, n, s) for s in ("train", "probe", "evaluation")} for n in slices}
        figures = {n: {"loss": {"champion": 0.2, "candidate": 0.19}} for n in slices}
        record = {
            "schema": 2, "version": version, "parent": parent, "run": run, "created": self.moment.isoformat(),
            "trigger": {"kind": "schedule", "by": "", "reason": self.hostile}, "approval": None, "code": "c" * 64,
            "digests": {"base": "b" * 32, "extractor": "e" * 32, "state": {**state, "adapter": adapter}},
            "parameters": {"file": {"name": "made-up", "update": {"method": "replay_distill"}}, "set": {}},
            "environment": {"python": "3.12", "torch": "2.13.0", "platform": "linux", "image": self.hostile},
            "slices": {n: {"loss": 0.19} for n in slices}, "seconds": 60.0, "gpu_seconds": 0.0, "times": {},
        }  # fmt: skip
        if run and parent:
            record["digests"] |= {
                "teacher": self.versions[parent].record["digests"]["state"]["adapter"],
                "batch": "d" * 64,
            }
            ingested = {"batch": {"runs": self.ended[run]["batch"]["runs"], "assets": batch.num_rows, "slices": splits}}
            record["reports"] = {
                "ingest": {"figures": ingested},
                "drift": {"verdict": "drifted", "why": f"drifted: new data{self.hostile}", "figures": {}},
                "update": {"figures": {"examples_new": batch.num_rows, "examples_replay": trained.num_rows}},
                "evaluate": {"figures": {"slices": figures, "seed_plan": 1}},
                "gate": {"verdict": "promote", "why": f"promote: all passed{self.hostile}", "figures": {"checks": []}},
            }
            outs = [{"path": "tonight/batch", "md5": self.put(batch)}]
            record["stages"] = {"ingest": {"deps": [], "outs": outs}}
        record = whole_record(record)
        self.versions[version] = Told(parent, record, batch, trained, dict(self.state))
        self.champion = version
        self.write(f"versions/v{int(version[1:]):04d}.json", record)

    def rollback(self, version: str) -> None:
        """An older version is the champion again, without what was withdrawn."""
        kept = [version, *self.parents(version)]
        left = [v for v in [self.champion, *self.parents(self.champion)] if v not in kept]
        event = {"kind": "rollback", "version": version, "from": self.champion, "lineage": kept, "left": left}
        self.write_event(f"rollback-{version}", {"schema": 2, **event, **self.person(), "relearn": False})
        self.state = {part: self.alive(table) for part, table in self.versions[version].state.items()}
        self.champion = version

    def withdraw(self, names: Iterable[str], *, erase: bool = False) -> None:
        """Assets leave the state and every intake; with `erase` the bytes of all datasets that hold them go, too."""
        names = list(names)
        prints = {"dhash": "00" * 8, "thumbnail": base64.b64encode(bytes(192)).decode()}
        event = {"kind": "withdrawal", "assets": [{"sha256": name, **prints} for name in names], "source": None}
        self.tombstones |= dict.fromkeys(names)
        learnt = {v: {} for v, told in self.versions.items() if set(names) & set(told.batch["sha256"].to_pylist())}
        replaced, erased = self.cleaned(set(names), erase=erase)
        event |= {"replaced": replaced, "erased": erased, "erase": erase, "touched": {"learnt": learnt}}
        self.write_event("withdrawal", {"schema": 2, **event, **self.person()})
        self.state = {part: self.alive(table) for part, table in self.state.items()}
        self.intakes = {run: self.alive(table) for run, table in self.intakes.items()}

    def cleaned(self, names: set[str], *, erase: bool) -> tuple[dict[str, Any], list[str]]:
        """(replaced, erased) of a withdrawal; deletes what is erased."""
        replaced, erased = {}, []
        for md5, table, name in self.datasets():
            if names & set(table["sha256"].to_pylist()):
                replaced[md5] = {"md5": self.put(self.alive(table), name), "size": 1, "nfiles": 1}
                erased += [md5] if erase else []
        for md5 in erased:
            (self.store / "files/md5" / md5[:2] / md5[2:]).unlink(missing_ok=True)
        return replaced, sorted(set(erased))

    def datasets(self) -> list[tuple[str, pa.Table, str]]:
        """Every dataset that a record or an event names: its digest, its rows, its file."""
        found = []
        for told in self.versions.values():
            digests = told.record["digests"]["state"]
            found += [(digests[part], told.state[part], name) for part, name in PARTS.items()]
            for out in told.record.get("stages", {}).get("ingest", {}).get("outs", ()):
                found.append((out["md5"], told.batch, "manifest.parquet"))
        intakes = [(event["intake"]["md5"], self.intakes[run], "manifest.parquet") for run, event in self.ended.items()]
        return found + intakes

    def alive(self, table: pa.Table) -> pa.Table:
        """The rows that were not withdrawn."""
        return table.filter(pc.invert(pc.is_in(table["sha256"], pa.array(list(self.tombstones), pa.string()))))

    def parents(self, version: str | None) -> list[str]:
        """The chain of parents, the nearest first."""
        found = []
        while version and (version := self.versions[version].parent):
            found.append(version)
        return found

    def count(self, table: pa.Table, slice_name: str, split: str) -> int:
        rows = zip(table["slice"].to_pylist(), table["split"].to_pylist(), strict=True)
        return sum(row == (slice_name, split) for row in rows)

    def person(self) -> dict[str, str]:
        return {"by": f"Ada{self.hostile}", "through": "command line", "reason": f"she asked{self.hostile}"}

    def write_event(self, name: str, event: dict[str, Any]) -> dict[str, Any]:
        stem = f"{self.moment:%Y%m%dT%H%M%S%f}Z-{name}"
        event |= {"at": self.moment.isoformat(timespec="seconds"), "id": stem}
        event = whole_event(event)
        self.write(f"events/{stem}.json", event)
        return event

    def write(self, path: str, document: dict[str, Any]) -> None:
        write_json(self.root / path, document)
        self.moment += timedelta(hours=1)

    def push(self) -> None:
        """Put everything so far on main."""
        write_json(self.root / "state/champion.json", whole_champion(self.champion))
        git(self.root, "add", "--all")
        git(self.root, "commit", "-q", "-m", "as it is now")
        git(self.root, "push", "-q", self.line.git, "HEAD:refs/heads/main")


def random_line(folder: Path, seed: int, steps: int, *, erase: bool = False) -> Fabricated:
    """A line after `steps` random nights, rollbacks and withdrawals, pushed."""
    line = Fabricated(folder, seed)
    acts = {"promoted": 0.5, "rejected": 0.1, "no_update": 0.1, "held": 0.05, "rollback": 0.15, "withdraw": 0.1}
    for _ in range(steps):
        act = str(line.random.choice(list(acts), p=list(acts.values())))
        before, known = line.parents(line.champion), line.state["reference"]["sha256"].to_pylist()
        if act == "rollback" and before:
            line.rollback(str(line.random.choice(before)))
        elif act == "withdraw":
            line.withdraw([str(line.random.choice(known))], erase=erase)
        elif act != "rollback":
            line.night(act, int(line.random.integers(1, 8)))
    line.push()
    return line
