"""What a verification finds: faults, and notes of what is as it should be although it looks otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cl_steps.data.quarantine import printable

Kind = Literal[
    "corrupt",
    "missing",
    "unsigned",
    "bad_signature",
    "untrusted",
    "wrong_tag",
    "missing_tag",
    "rewritten",
    "inconsistent",
    "erased",
]
NUM_NAMED = 3
"""How many faults the one sentence of an error names."""


@dataclass(frozen=True)
class Finding:
    """One thing found: what kind it is, where (`v3 adapter/pytorch_lora_weights.safetensors`), and why.

    corrupt: bytes are not what their name or their format says. missing: what something names is not there.
    unsigned, bad_signature, untrusted: no signature, one that is not of these bytes, one of nobody who counts.
    wrong_tag, missing_tag: a version's tag points elsewhere, or is not there yet. rewritten: what is for ever was
    changed. inconsistent: two things that must agree do not. erased: a person's event says that it was deleted.
    """

    kind: Kind
    where: str
    why: str
    fault: bool = True


@dataclass(frozen=True)
class Verification:
    """Everything that was looked at and found; `signed` says whether signatures were checked."""

    versions: Sequence[str]
    findings: Sequence[Finding]
    num_objects: int
    num_bytes: int
    signed: bool

    @property
    def faults(self) -> list[Finding]:
        """What is not as it should be."""
        return [finding for finding in self.findings if finding.fault]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "ok": not self.faults,
            "versions": list(self.versions),
            "signatures": "checked" if self.signed else "not checked: there are no trusted keys",
            "counts": {"objects": self.num_objects, "bytes": self.num_bytes, "faults": len(self.faults)},
            "findings": [asdict(finding) for finding in self.findings],
        }

    def text(self) -> str:
        """As lines: every finding, and what was looked at."""
        lines = [
            f"{'' if finding.fault else 'note: '}{finding.kind}: {printable(finding.where)}: {printable(finding.why)}"
            for finding in sorted(self.findings, key=lambda finding: finding.fault)
        ]
        signed = "signatures checked" if self.signed else "signatures not checked: there are no trusted keys (--keys)"
        faults = _counted(self.faults) if self.faults else "all as it should be"
        looked = f"{self.num_objects} objects, {self.num_bytes} bytes read; {signed}"
        return "\n".join([*lines, f"{span(self.versions)}: {looked}; {faults}"])

    def sentence(self) -> str:
        """How many faults there are, and the first of them."""
        faults = self.faults
        named = "; ".join(f"{fault.kind}: {printable(fault.where)}" for fault in faults[:NUM_NAMED])
        rest = f" and {len(faults) - NUM_NAMED} more" if len(faults) > NUM_NAMED else ""
        return f"{_counted(faults)}: {named}{rest}; see above, and restore what is wrong from a backup"


def _counted(faults: Sequence[Finding]) -> str:
    return "1 fault" if len(faults) == 1 else f"{len(faults)} faults"


def span(versions: Sequence[str]) -> str:
    """Versions in few words: `v7`, `v1 to v7`."""
    return versions[0] if len(versions) == 1 else f"{versions[0]} to {versions[-1]}"


def listed(places: Iterable[str]) -> tuple[str, str]:
    """The first of some places, and what to say of the others."""
    first, *others = places
    if not others:
        return first, ""
    return first, f" (as {', '.join(others[:NUM_NAMED])}{' and more' if len(others) > NUM_NAMED else ''} too)"
