"""A version as a CycloneDX 1.6 machine-learning bill of materials: model, base, data, libraries, and a model card.

The same record and files give the same document, serial number and time included. It is written as plain JSON, since
the libraries that write CycloneDX know no `modelCard`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from cl_steps.formats.facts import SILENT, Facts
from cl_steps.version import version

Json = dict[str, Any]

SPDX = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "gpl-3.0": "GPL-3.0-only",
    "agpl-3.0": "AGPL-3.0-only",
    "cc0-1.0": "CC0-1.0",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0",
}
"""Licences as cards call them and as SPDX does; any other goes by its own name."""
MODEL, BASE = "model", "base"
NAMESPACE = uuid.UUID("5f0b4b53-7c43-5a4b-9c1e-6d6a1c0d4c11")
"""The namespace of all UUIDs that are derived here."""
NOT_LIBRARIES = ("image", "python", "platform", "machine", "devices")
DATA = {
    "batch": "what this version learnt anew",
    "replay": "what was replayed so that it is not forgotten, as it is after this version",
    "global_eval": "the held-out images that versions are compared on",
    "reference": "the features and facts of everything known, which drift is measured against",
}
"""Data of a version by the names of their digests. MD5s are those of DVC's objects."""
LIMITATIONS = (
    "It draws well what its slices hold; what lies outside was never measured.",
    "Its figures come from the line's own held-out images and prompts, at the line's own sampling settings.",
)
USES = ("Drawing pictures from text in the styles and subjects of its slices.",)
SYNTHETIC = {
    "name": "Its pictures are synthetic and may be taken for real ones.",
    "mitigationStrategy": "Mark them with C2PA content credentials: `retain mark`, or content-credentials.json.",
}


PARTS = "base and adapter"
"""An export that is both, one beside the other."""


def bill_of_materials(facts: Facts, merged: bool = False, comfyui: bool = False) -> Json:
    """The document, as JSON values; `merged` of an export whose adapter is in the pipeline's weights.

    `comfyui` of one that is the adapter alone, written as ComfyUI reads it.
    """
    data = list(_data(facts))
    libraries = list(_libraries(facts))
    base = _base(facts)
    parts = [base, *data, *libraries]
    form = "adapter for ComfyUI" if comfyui else "merged" if merged else PARTS
    kind = "comfyui" if comfyui else str(merged)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, f'{facts.record_sha256} {kind}')}",
        "version": 1,
        "metadata": {
            "timestamp": facts.record.created,
            "tools": {"components": [{"type": "application", "name": "retain", "version": version()}]},
            "component": _model(facts, data, form),
        },
        "components": parts,
        "dependencies": [{"ref": MODEL, "dependsOn": [part["bom-ref"] for part in parts]}]
        + [{"ref": part["bom-ref"]} for part in parts],
    }


def _model(facts: Facts, data: list[Json], form: str) -> Json:
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": facts.line,
        "version": facts.version,
        "description": "A diffusion model that draws pictures from text, kept up to date without forgetting.",
        **_hashes("SHA-256", facts.adapter_sha256 if form == PARTS else ""),
        **_licences({facts.base.licence_name or facts.base.licence: 1}),
        "pedigree": {"ancestors": list(_ancestors(facts)), "notes": "Each version is learnt from its parent."},
        "modelCard": {
            "modelParameters": _parameters(facts, data),
            "quantitativeAnalysis": {"performanceMetrics": list(_metrics(facts))},
            "considerations": {
                "useCases": list(USES),
                "technicalLimitations": list(LIMITATIONS),
                "ethicalConsiderations": [SYNTHETIC],
            },
        },
        "properties": _properties(facts, form),
    }


def _parameters(facts: Facts, data: list[Json]) -> Json:
    return {
        "approach": {"type": "self-supervised"},
        "task": "text-to-image",
        "architectureFamily": "latent diffusion",
        **({"modelArchitecture": facts.base.pipeline} if facts.base.pipeline else {}),
        "datasets": [{"ref": part["bom-ref"]} for part in data],
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "image"}],
    }


def _metrics(facts: Facts) -> Iterator[Json]:
    for name, metrics in sorted(facts.record.slices.items()):
        for metric, value in sorted(metrics.items()):
            if value is not None:
                yield {"type": metric, "value": f"{value:.6g}", "slice": name}


def _properties(facts: Facts, form: str) -> list[Json]:
    record = facts.record
    made_from = ("adapter",) if record.rebase is not None else ("teacher", "adapter")
    found = {
        "run": record.run,
        "record-sha256": facts.record_sha256,
        "code-sha256": record.code,
        "gate": facts.record.verdict("gate"),
        "gpu-seconds": record.gpu_seconds,
        "export": form,
        **{f"{name}-md5": facts.digest(name) for name in made_from},
        **{f"file-sha256:{name}": digest for name, digest in sorted(facts.files.items())},
    }
    return [{"name": f"retain:{key}", "value": str(value)} for key, value in found.items() if value]


def _ancestors(facts: Facts) -> Iterator[Json]:
    for record in facts.ancestors:
        run = [{"name": "retain:run", "value": record.run}] if record.run else []
        yield {
            "type": "machine-learning-model",
            "name": facts.line,
            "version": record.version,
            **({"properties": run} if run else {}),
        }
    yield {key: value for key, value in _base(facts).items() if key != "bom-ref"}


def _base(facts: Facts) -> Json:
    return {
        "type": "machine-learning-model",
        "bom-ref": BASE,
        "name": facts.base.hub_id or "base",
        "description": "The pipeline that the line began with; its weights never change.",
        **_hashes("MD5", facts.digest("base")),
        **_licences({facts.base.licence_name or facts.base.licence: 1}),
    }


def _data(facts: Facts) -> Iterator[Json]:
    for name, what in DATA.items():
        digest = facts.digest(name)
        if digest:
            yield {
                "type": "data",
                "bom-ref": f"data:{name}",
                "name": name,
                "description": what,
                **_hashes("SHA-256" if len(digest) == 64 else "MD5", digest),
                **(_licences(facts.licences) if name == "reference" else {}),
                "data": [{"type": "dataset", "name": name}],
            }


def _libraries(facts: Facts) -> Iterator[Json]:
    for name, installed in sorted(facts.record.environment.items()):
        if name not in NOT_LIBRARIES and isinstance(installed, str):
            purl = f"pkg:pypi/{name}@{installed}"
            yield {"type": "library", "bom-ref": purl, "name": name, "version": installed, "purl": purl}


def _hashes(algorithm: str, digest: str) -> Json:
    """The hash of an object or file; nothing for what is no such digest."""
    content, length = digest.removesuffix(".dir"), {"MD5": 32, "SHA-256": 64}[algorithm]
    known = re.fullmatch(f"[0-9a-f]{{{length}}}", content)
    return {"hashes": [{"alg": algorithm, "content": content}]} if known else {}


def _licences(names: Mapping[str, int]) -> Json:
    """SPDX's name where there is one; nothing where nobody told any."""
    told = [SPDX.get(name.lower()) or name for name in names if name != SILENT]
    known = set(SPDX.values())
    return {"licenses": [{"license": {"id" if name in known else "name": name}} for name in told]} if told else {}
