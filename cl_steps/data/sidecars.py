"""What lies around a picture and speaks of it: a caption beside it, and the name of its folder.

`1.jpg` has its caption in `1.txt`, `1.caption` or `1.json`. Of a text the first line that is not blank counts, as
trainers that take one line for one caption have it; a JSON object is read as a line of metadata. kohya's folders,
`10_name class`, give the slice `name-class`, and where nothing else does the caption `name class`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from cl_steps.data import metadata
from cl_steps.data.captions import known, slice_named
from cl_steps.data.landing import Landing
from cl_steps.data.quarantine import Unusable, printable
from cl_steps.documents import Json
from cl_steps.landing import names
from cl_steps.landing.entries import Entry


@dataclass(frozen=True)
class Claim:
    """What is said of a file of the landing: by a line of the metadata file `source`, and by what lies around it.

    `fault` is that of the caption beside it.
    """

    file: str
    values: Json
    source: str = ""
    fault: Unusable | None = None

    @property
    def has_text(self) -> bool:
        """Whether it holds a caption, if only a wrong one."""
        return self.values.get("text") not in (None, "")


@dataclass
class Sidecars:
    """The captions beside pictures, taken out of what may be a picture; those of no picture are passed over.

    A picture and its caption are taken in the same night.
    """

    landing: Landing
    beside: dict[str, list[str]] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    num_repeated: int = 0
    num_by_class: int = 0

    @classmethod
    def of(cls, landing: Landing) -> Sidecars:
        """Those of a landing."""
        found = cls(landing)
        pictures = dict(_stems(landing.left)) | dict.fromkeys(dict(_stems(landing.legible)), "")
        found.waiting = {names.stem(name) for name in landing.left if Entry(name).is_sidecar}
        for name in [name for name, entry in landing.files.items() if entry.is_sidecar]:
            why = pictures.get(names.stem(name))
            if why is None:
                landing.pass_over(name, "texts")
            elif why:
                landing.leave(name, why)
            else:
                found.beside.setdefault(names.stem(name), []).append(name)
        return found

    @property
    def names(self) -> set[str]:
        """Of the captions that a picture has."""
        return {name for found in self.beside.values() for name in found}

    def completed(self, claim: Claim) -> Claim | None:
        """The claim with what lies around its file; what metadata says counts first. None: its caption is left."""
        stem = names.stem(claim.file)
        if not claim.has_text and stem in self.beside:
            claim = self._with_caption(claim, self.beside[stem])
        elif not claim.has_text and stem in self.waiting:
            return None
        return self._placed(claim)

    def _with_caption(self, claim: Claim, found: list[str]) -> Claim:
        name = min(found, key=lambda name: names.SIDECARS.index(names.suffix(name)))
        try:
            values = _values(name, self.landing.read(name))
        except Unusable as fault:
            reason = f"of its caption in {printable(name)}: {fault.reason}"
            return replace(claim, fault=Unusable(fault.code, reason))
        return replace(claim, values={**values, **{key: value for key, value in claim.values.items() if value}})

    def _placed(self, claim: Claim) -> Claim:
        folder = claim.file.rpartition("/")[0].rpartition("/")[2]
        times, words = names.repeats(folder)
        self.num_repeated += times > 1
        said = dict(claim.values)
        if words and not claim.has_text and not claim.fault:
            said["text"] = words
            self.num_by_class += 1
        if (words or (folder and self.landing.limits.slice_by_folder)) and said.get("slice") in (None, ""):
            said["slice"] = slice_named(words or folder)
        return replace(claim, values=said)


def _stems(found: Json) -> Iterator[tuple[str, str]]:
    """What a picture's name and its caption's have in common, and what is said of the picture."""
    for name, said in found.items():
        if not Entry(name).is_sidecar and not names.is_metadata(name):
            yield names.stem(name), said


def _values(name: str, content: bytes) -> Json:
    if names.suffix(name) == ".json":
        return known(metadata.json_object(content))
    lines = (line.strip() for line in metadata.decoded(content).splitlines())
    return {"text": next(filter(None, lines), "")}
