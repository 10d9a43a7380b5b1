"""What the formats of others tell of a version, gathered once: record, ancestors, base, files, licences.

Nothing here is a caption, a reason or a person's name: what is published of a version is read by strangers.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.parquet as pq

from cl_steps.digests import sha256
from cl_steps.documents import Unreadable, read_yaml
from cl_steps.ledger.ancestors import nearest_first
from cl_steps.ledger.names import version_file
from cl_steps.ledger.record import Record, parse_record
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline
from cl_steps.store.objects import open_store

ADAPTER_FILE = "adapter/pytorch_lora_weights.safetensors"
CARD, INDEX, SOURCE, KNOWN = "README.md", "model_index.json", "source.json", "known.parquet"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LONGEST = 200
SILENT = ""
"""How an asset's facts say that nobody told its licence."""


@dataclass(frozen=True)
class Base:
    """The pipeline that a line began with, as its own card tells; what it does not tell is empty.

    `licence` is the card's word for it, such as `creativeml-openrail-m` or `other`; `checker` whether the pipeline
    names a safety checker.
    """

    hub_id: str = ""
    pipeline: str = ""
    licence: str = ""
    licence_name: str = ""
    licence_link: str = ""
    checker: bool = False

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> Base:
        """From the contents of its card, its index and `source.json`, as far as they are there and can be read."""
        card, index, source = header(files.get(CARD, b"")), _json(files.get(INDEX)), _json(files.get(SOURCE))
        hub_id, checker = _word(source.get("hub_id")), index.get("safety_checker")
        return cls(
            hub_id if HUB_ID.fullmatch(hub_id) else "",
            _word(index.get("_class_name")),
            _word(card.get("license")),
            _word(card.get("license_name")),
            _word(card.get("license_link")),
            isinstance(checker, list) and bool(checker) and bool(checker[0]),
        )


@dataclass(frozen=True)
class Facts:
    """A version: its record and the SHA-256 of it, the records before it (its parent first, v1 last), and the rest.

    `files` are SHA-256 by path (`adapter/...`, `base/...`), and `licences` numbers of assets by licence: of everything
    that base and version were told to know, "" for those that came without one.
    """

    line: str
    record: Record
    record_sha256: str
    ancestors: tuple[Record, ...] = ()
    base: Base = field(default_factory=Base)
    files: Mapping[str, str] = field(default_factory=dict)
    licences: Mapping[str, int] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Such as `v7`."""
        return str(self.record.version)

    @property
    def adapter_sha256(self) -> str:
        """Of the adapter's file; empty where the store no longer holds it."""
        return self.files.get(ADAPTER_FILE, "")

    def digest(self, name: str) -> str:
        """A digest of the record, such as `batch`, or of its state, such as `adapter`; empty where it has none."""
        return self.record.digest(name)


def gather(line: Line, main: Mainline, version: str) -> Facts:
    """The facts of a version (`champion`: the champion) from main and the store.

    What the store no longer holds is left out.

    Raises:
        UsageError: there is no such version.
        IntegrityError: an object is not what its name says.
        Unavailable: the store cannot be reached.
    """
    wanted = main.champion().version if version == "champion" else version
    record, digest = record_digest(main, wanted)
    known = Facts(name_of(main), record, digest, _ancestors(main, record))
    with open_store(line.store) as store:
        digests = {name: known.digest(name) for name in _READ}
        found = {name: store.files(md5, _READ[name]) if md5 else {} for name, md5 in digests.items()}
    adapter = {f"adapter/{name}": sha256(content) for name, content in found["adapter"].items()}
    return replace(
        known,
        base=Base.of(found["base"]),
        files={**adapter, **record.files},
        licences=_licences(found["reference"].get(KNOWN)),
    )


_READ = {
    "base": (CARD, INDEX, SOURCE),
    "adapter": (ADAPTER_FILE.partition("/")[2],),
    "reference": (KNOWN,),
}
"""What is read of the store, by the part of the state that holds it."""


def record_digest(main: Mainline, version: str) -> tuple[Record, str]:
    """A version's record and the SHA-256 of its file on main; raises UsageError where there is none."""
    content = main.record_file(version)
    return parse_record(version_file(version), content), sha256(content)


def name_of(main: Mainline) -> str:
    """What the line is called."""
    return str(main.params_file().get("name") or "my-line")


def header(card: bytes) -> dict[str, Any]:
    """The YAML at the top of a Markdown card; empty where there is none that can be read."""
    found = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", card.decode("utf-8", "replace"), re.DOTALL)
    try:
        values = read_yaml(found[1].encode()) if found else None
    except Unreadable:
        return {}
    return values if isinstance(values, dict) else {}


def _ancestors(main: Mainline, record: Record) -> tuple[Record, ...]:
    records = {each.version: each for each in main.records()}
    return tuple(records[name] for name in nearest_first(records.values(), record.version)[1:])


def _licences(content: bytes | None) -> dict[str, int]:
    """Numbers of assets by licence out of the reference's list of everything known."""
    if not content:
        return {}
    column = pq.read_table(io.BytesIO(content), columns=["licence"])["licence"].to_pylist()
    return dict(sorted(Counter(_word(value) or SILENT for value in column).items()))


def _json(content: bytes | None) -> dict[str, Any]:
    try:
        values = json.loads(content or b"{}")
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _word(value: object) -> str:
    """One line of printable text, or nothing: cards and facts of assets are written by strangers."""
    text = value[0] if isinstance(value, list) and len(value) == 1 else value
    return "".join(c for c in text if c.isprintable()).strip()[:LONGEST] if isinstance(text, str) else ""
