"""Where a version came from, as others read it: SLSA provenance v1, made from the version's record. Pure."""

from __future__ import annotations

from typing import Any

from cl_steps.digests import sha256
from cl_steps.ledger.names import version_file
from cl_steps.ledger.record import Record

PROVENANCE, BUILD = "https://slsa.dev/provenance/v1", "urn:retain:promotion:1"


def provenance(record: Record) -> dict[str, Any]:
    """The predicate of SLSA provenance v1: what a version was asked to be, what it was made from, and by what."""
    environment = dict(record.environment)
    libraries = {name: str(environment[name]) for name in sorted(environment) if name not in ("image", "devices")}
    return {
        "buildDefinition": {
            "buildType": BUILD,
            "externalParameters": {"parameters": record.parameters.document(), "trigger": record.trigger.document()},
            "internalParameters": {"version": record.version, "parent": record.parent},
            "resolvedDependencies": _dependencies(record),
        },
        "runDetails": {
            "builder": {"id": f"urn:retain:code:{record.code}", "version": libraries},
            "metadata": {"invocationId": record.run or "init", "finishedOn": record.created},
        },
    }


def provenance_subjects(record: Record, content: bytes) -> dict[str, str]:
    """What the provenance is about, with each one's SHA-256: the record and the adapter's files."""
    return {version_file(record.version): sha256(content), **adapter_files(record)}


def adapter_files(record: Record) -> dict[str, str]:
    """The SHA-256 of the adapter's files; records of before have none."""
    return {name: digest for name, digest in record.files.items() if name.startswith("adapter/")}


def _dependencies(record: Record) -> list[dict[str, Any]]:
    digests = record.digests
    taken = {dep["path"]: dep["md5"] for stage in record.stages.values() for dep in stage.get("deps", ())}
    teacher = digests.teacher if record.rebase is None else None
    stored = {"teacher": teacher, "replay": taken.get("state/replay")}
    stored |= {"base": digests.base, "extractor": digests.extractor}
    found = [
        {"name": name, "uri": f"dvc:{md5}", "digest": {"md5": md5.removesuffix(".dir")}}
        for name, md5 in sorted(stored.items())
        if md5
    ]
    if digests.batch:
        found.append({"name": "batch", "digest": {"sha256": digests.batch}})
    image = str(record.environment.get("image") or "")
    if image:
        found.append({"name": "image", "uri": image, "digest": _image_digest(image)})
    return [*found, {"name": "code", "digest": {"sha256": record.code}}]


def _image_digest(image: str) -> dict[str, str]:
    name, _, digest = image.rpartition("@sha256:")
    return {"sha256": digest} if name else {}
