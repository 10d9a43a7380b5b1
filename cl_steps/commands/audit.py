"""`retain audit`: what somebody should look at once a week. It reads and changes nothing.

Every digest and signature is verified and every quarantine counted again, as `retain verify --all` does; then the
sealed images, which no night may look at, are asked whether the champion still knows what its anchors knew.
"""

from __future__ import annotations

from typing import Any

from cl_steps.errors import FaultsFound
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import reading
from cl_steps.verify.authenticity import trust_of
from cl_steps.verify.verification import verify

NOT_TOUCHED = "a model that is not as it should be is not opened"


def audit(dir: str, no_sealed: bool, json: bool) -> dict[str, Any] | str:
    """Audit the line.

    Raises:
        FaultsFound: something is not as it should be, or the champion is worse on sealed images than its budget allows.
        UsageError: the trusted keys are not right.
        Unavailable: the Git remote or the store cannot be reached.
    """
    line = resolve(dir)
    found = verify(line, None, trust_of(None, line.trusted_keys))
    asked = [] if no_sealed or found.faults else _sealed(line)
    worse = [name for name, is_worse in ((slice_["slice"], slice_["worse"]) for slice_ in asked) if is_worse]
    why = "" if asked else NOT_TOUCHED if found.faults else "left out (--no-sealed)"
    document = {**found.document(), "ok": not found.faults and not worse, "sealed": {"slices": asked, "why": why}}
    result = document if json else "\n".join([found.text(), *_text(asked, why)])
    if found.faults:
        raise FaultsFound(found.sentence(), result)
    if worse:
        sentence = f"the champion is worse than its anchors on sealed images of {', '.join(worse)}: roll back"
        raise FaultsFound(f"{sentence}, or raise evaluate.looks and evaluate.images_per_slice", result)
    return result


def _sealed(line: Line) -> list[dict[str, Any]]:
    from cl_steps.verify.holdout import audit_sealed

    with reading(line.git) as main:
        return [found.document() for found in audit_sealed(line, main)]


def _text(asked: list[dict[str, Any]], why: str) -> list[str]:
    from cl_steps.verify.holdout import SliceAudit, in_words

    return [in_words(SliceAudit(**found)) for found in asked] or [f"sealed images: {why}"]
