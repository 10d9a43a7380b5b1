"""`retain mirror`: a line's versions in an MLflow registry, for those who look there. The line stays where it is.

Given again, it adds what is new and lets the alias `champion` follow, after a rollback too.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from cl_steps.documents import json_text
from cl_steps.formats.bom import bill_of_materials
from cl_steps.formats.card import model_card
from cl_steps.formats.facts import Facts, gather, name_of
from cl_steps.formats.mlflow import Server
from cl_steps.formats.registry import Registry
from cl_steps.ledger.names import version_file
from cl_steps.operations.page import write_report
from cl_steps.progress import say
from cl_steps.records.signer import provenance_path, signature_path
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import Mainline, reading

PAGE = "night.html"


def mirror(dir: str, mlflow: str, json: bool) -> dict[str, Any] | str:
    """Write every version that is not there yet, oldest first; the line's page goes with the newest of them.

    Raises:
        UsageError: the server refuses, or is none.
        Unavailable: it does not answer, or a remote cannot be reached.
        IntegrityError: what the store holds of a version is not what its record says.
    """
    line, server = resolve(dir), Server.of(mlflow, os.environ)
    with reading(line.git) as main:
        registry = Registry.of(server, name_of(main))
        there = registry.versions()
        records = [record.version for record in main.records()]
        absent = [version for version in records if version not in there]
        page = _page(line) if absent else b""
        pages = dict.fromkeys(absent[-1:], page)
        made = {version: _add(registry, line, main, version, pages.get(version, b"")) for version in absent}
        there |= {version: found["mlflow"] for version, found in made.items()}
        champion = main.champion().version
        registry.point(there[champion])
    if any(not found["artifacts"] for found in made.values()):
        say("mirror: the server serves no artifacts (mlflow server --serve-artifacts): figures went, papers did not")
    document = {"line": registry.line, "champion": champion, "versions": there, "made": made, "url": server.url}
    return document if json else _text(document)


def _add(registry: Registry, line: Line, main: Mainline, version: str, page: bytes) -> dict[str, Any]:
    say(f"mirror: {version}")
    facts = gather(line, main, version)
    papers = _papers(facts, main) | ({PAGE: page} if page else {})
    return registry.add(facts, papers, "there" if "record.sig" in papers else "none")


def _papers(facts: Facts, main: Mainline) -> dict[str, bytes]:
    path = version_file(facts.version)
    signed = {"record.json": path, "record.sig": signature_path(path), "record.intoto.json": provenance_path(path)}
    found = {name: main.read(place) for name, place in signed.items()}
    return {
        **{name: content for name, content in found.items() if content is not None},
        "bom.cdx.json": json_text(bill_of_materials(facts)).encode(),
        "README.md": model_card(facts, facts.line).encode(),
    }


def _page(line: Line) -> bytes:
    """The line's page as it is now."""
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch:
        return write_report(line, Path(scratch)).read_bytes()


def _text(document: dict[str, Any]) -> str:
    new = ", ".join(document["made"]) or "nothing"
    return f"{document['line']} at {document['url']}: new {new}; champion is {document['champion']}"
