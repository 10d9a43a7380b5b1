"""All that a store holds, found by one listing: what there is, how large it is, and what is no object yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cl_steps.store.digests import OBJECT, OBJECTS
from cl_steps.store.places import Place


@dataclass(frozen=True)
class Inventory:
    """What a store held when it was looked at: sizes in bytes of its objects by name, and of drafts by path.

    Drafts are what is being stored just now, and what killed uploads left.
    """

    sizes: Mapping[str, int]
    drafts: Mapping[str, int]

    @classmethod
    def of(cls, place: Place) -> Inventory:
        """What is in the store at a place; raises Unavailable."""
        found = place.sizes(OBJECTS)
        named = {path: "".join(path.rsplit("/", 2)[1:]) for path in found}
        objects = {name: found[path] for path, name in named.items() if OBJECT.fullmatch(name)}
        return cls(objects, {f"{place.root}/{path}": found[path] for path in found if path.endswith(".tmp")})

    def bytes_of(self, names: Iterable[str]) -> int:
        """How large those of them are together that the store holds."""
        return sum(self.sizes.get(name, self.drafts.get(name, 0)) for name in names)
