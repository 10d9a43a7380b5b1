"""What a version was made from, as others read it: the same for the same record, in one order."""

from __future__ import annotations

from typing import Any

import pytest

from cl_steps.ledger.record import Record
from cl_steps.records.provenance import provenance
from tests.lasting import SHA256, whole_record
from tests.ledger.test_schemas import DIR, REBASE

STAGES = {"update": {"deps": [{"path": "state/replay", "md5": DIR}], "outs": []}}
DIGEST = "1" * 64


def dependencies(**said: Any) -> list[dict[str, Any]]:
    record = {"version": "v2", "parent": "v1", "stages": STAGES, **said}
    found = provenance(Record.from_document(whole_record(record)))
    return list(found["buildDefinition"]["resolvedDependencies"])


@pytest.mark.parametrize(
    ("image", "digest"), [(f"registry/steps@sha256:{DIGEST}", {"sha256": DIGEST}), ("registry/steps:1", {})]
)
def test_what_it_was_made_from_comes_in_one_order(image: str, digest: dict[str, str]) -> None:
    found = dependencies(environment={"image": image})
    assert [one["name"] for one in found] == ["base", "extractor", "replay", "teacher", "batch", "image", "code"]
    assert found[2] == {"name": "replay", "uri": f"dvc:{DIR}", "digest": {"md5": DIR.removesuffix(".dir")}}
    assert found[5] == {"name": "image", "uri": image, "digest": digest}
    assert found[6] == {"name": "code", "digest": {"sha256": SHA256}}


def test_a_new_base_has_no_teacher_and_a_bare_machine_no_image() -> None:
    found = dependencies(schema=2, rebase=REBASE, stages={})
    assert [one["name"] for one in found] == ["base", "extractor", "batch", "code"]
