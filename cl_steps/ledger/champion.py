"""The champion, `state/champion.json`: which version the state is, and what its slices are held to."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import AfterValidator, Field

from cl_steps.documents import json_text
from cl_steps.errors import IntegrityError
from cl_steps.ledger.lasting import Lasting, Name, Tuple, Version

CHAMPION = "state/champion.json"


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a slice stands twice")
    return names


class Champion(Lasting):
    """The version that is in use.

    `seed_plan` is the number of the prompts' and seeds' plan, negative after a rollback; `anchors` names the version
    that each slice is held to.
    """

    version: Version
    seed_plan: int
    slices: Annotated[Tuple[Name], AfterValidator(_once), Field(json_schema_extra={"uniqueItems": True})]
    anchors: dict[str, Version]


def parse_champion(content: bytes) -> Champion:
    """The champion in its file; raises IntegrityError where it names none."""
    try:
        return Champion.from_document(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{CHAMPION} names no version: `retain verify --all` says what is wrong") from error


def champion_bytes(champion: Champion) -> bytes:
    """The champion as its file holds it."""
    return json_text(champion.document()).encode()
