"""The bill of materials: valid, the same twice, and with everything that a version is made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cl_steps.formats.bom import bill_of_materials
from cl_steps.formats.facts import Base, Facts, gather
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from tests.lines.playing import line_after

HOSTILE = "<script>alert(1)</script> [x](javascript:y) `z` | --- {{7*7}}"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return line_after(tmp_path_factory.mktemp("bom") / "line", nights=1)


def facts_of(line: Line, version: str) -> Facts:
    with reading(line.git) as main:
        return gather(line, main, version)


def check(document: dict[str, Any]) -> None:
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    assert problem is None, problem
    refs = {part["bom-ref"] for part in document["components"]} | {"model"}
    assert {entry["ref"] for entry in document["dependencies"]} == refs


@pytest.mark.parametrize("version", ["v1", "v2", "champion"])
def test_it_is_valid_and_the_same_twice(line: Line, version: str) -> None:
    document = bill_of_materials(facts_of(line, version))
    check(document)
    assert document == bill_of_materials(facts_of(line, version))


def test_it_holds_what_the_version_is_made_of(line: Line) -> None:
    facts = facts_of(line, "v2")
    document = bill_of_materials(facts)
    model = document["metadata"]["component"]
    [digest] = [entry["content"] for entry in model["hashes"] if entry["alg"] == "SHA-256"]
    adapters = {hashlib.sha256(p.read_bytes()).hexdigest() for p in Path(line.store).rglob("*") if p.is_file()}
    assert digest in adapters
    assert [parent["version"] for parent in model["pedigree"]["ancestors"][:1]] == ["v1"]
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {"type": "loss", "value": "0.9", "slice": "old"} in metrics
    parts = {part["bom-ref"]: part for part in document["components"]}
    named = {ref["ref"] for ref in model["modelCard"]["modelParameters"]["datasets"]}
    assert {"data:batch", "data:replay", "data:global_eval"} <= named <= parts.keys()
    assert parts["data:batch"]["hashes"] == [{"alg": "SHA-256", "content": facts.record.digests.batch}]
    torch = facts.record.environment["torch"]
    assert f"pkg:pypi/torch@{torch}" in parts
    assert parts["base"]["hashes"][0]["content"] == facts.record.digests.base.removesuffix(".dir")


def test_different_versions_and_exports_have_different_serial_numbers(line: Line) -> None:
    facts = facts_of(line, "v2")
    merged = bill_of_materials(facts, merged=True)
    check(merged)
    assert "hashes" not in merged["metadata"]["component"]
    others = (bill_of_materials(facts), merged, bill_of_materials(facts_of(line, "v1")))
    assert len({document["serialNumber"] for document in others}) == 3


def test_licences_are_those_of_base_and_data_whatever_they_are_called(line: Line) -> None:
    known = facts_of(line, "v2")
    assert known.licences == {"": 24}
    base = Base("owner/name", "StableDiffusionPipeline", "apache-2.0")
    told = Facts(known.line, known.record, known.record_sha256, (), base, {}, {HOSTILE: 3, "CC-BY-4.0": 2, "": 1})
    document = bill_of_materials(told)
    check(document)
    parts = {part["bom-ref"]: part for part in document["components"]}
    assert parts["base"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert parts["data:reference"]["licenses"] == [{"license": {"name": HOSTILE}}, {"license": {"id": "CC-BY-4.0"}}]


def test_files_that_a_record_names_are_in_it(line: Line) -> None:
    known = facts_of(line, "v2")
    record = known.record.model_copy(update={"files": {"base/unet/x.safetensors": "a" * 64}})
    document = bill_of_materials(Facts(known.line, record, known.record_sha256, files=record.files))
    check(document)
    properties = document["metadata"]["component"]["properties"]
    assert {"name": "retain:file-sha256:base/unet/x.safetensors", "value": "a" * 64} in properties
