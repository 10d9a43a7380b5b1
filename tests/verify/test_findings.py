"""What a verification says."""

from __future__ import annotations

from cl_steps.verify.findings import Finding, Verification

FAULT, NOTE = Finding("missing", "v2 base", "gone"), Finding("missing_tag", "v1 tag", "soon", fault=False)


def test_a_verification_says_what_it_looked_at_and_faults_last() -> None:
    found = Verification(["v1", "v2"], [FAULT, NOTE], 3, 70, signed=False)
    assert found.text().splitlines() == [
        "note: missing_tag: v1 tag: soon",
        "missing: v2 base: gone",
        "v1 to v2: 3 objects, 70 bytes read; signatures not checked: there are no trusted keys (--keys); 1 fault",
    ]
    assert found.document()["signatures"] == "not checked: there are no trusted keys"
    assert found.document()["counts"] == {"objects": 3, "bytes": 70, "faults": 1}
    many = Verification(["v2"], [FAULT] * 5, 3, 70, signed=True)
    assert many.sentence().startswith("5 faults: missing: v2 base; missing: v2 base; missing: v2 base and 2 more; see")
    assert (
        Verification(["v2"], [NOTE], 3, 70, signed=True)
        .text()
        .endswith("v2: 3 objects, 70 bytes read; signatures checked; all as it should be")
    )
