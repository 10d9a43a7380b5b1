"""What all that lasts is made of: one frozen model, and the types of its parts.

A model names what must be there and of which type. It keeps keys that it does not know, since a newer Retain may have
written them. `document` gives back what was read, key by key: what is on disk is never rewritten, and what is signed is
the bytes of a file, never a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import core_schema

KEPT = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False, ser_json_inf_nan="constants")
T = TypeVar("T")


def _moment(value: str) -> str:
    if datetime.fromisoformat(value).tzinfo is None:
        raise ValueError("a moment needs its time zone")
    return value


def _there(value: T | None) -> T:
    if value is None:
        raise ValueError("it is left out or has a value, and is never null")
    return value


def _number(value: object) -> object:
    if type(value) is not int:
        raise ValueError("it is the number of a format")
    return value


class _Stated:
    """Marks what may be left out, and is not null where it stands."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(_there, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return next(dict(each) for each in handler(schema)["anyOf"] if each != {"type": "null"})


IsNumber = BeforeValidator(_number)
"""Of the number of a format, which `true` equals."""
Stated = Annotated[T | None, _Stated()]
Tuple = Annotated[tuple[T, ...], Field(strict=False)]
"""A list of JSON."""
Moment = Annotated[str, AfterValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
Name = Annotated[str, StringConstraints(min_length=1)]
Version = Annotated[str, StringConstraints(pattern=r"^v[1-9][0-9]{0,8}$")]
FolderMd5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}\.dir$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
Whole = Annotated[int, Field(ge=0)]
Number = Annotated[int | float, WithJsonSchema({"type": "number"})]
Positive = Annotated[int | float, Field(ge=0), WithJsonSchema({"type": "number", "minimum": 0})]


class WrongShape(ValueError):
    """What is wrong with a document, in a few words: the place of the first thing, and what."""


class Lasting(BaseModel):
    """A document, or a part of one, that is written once and read for ever."""

    model_config = KEPT

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The model of a document; raises WrongShape."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise WrongShape(in_words(error)) from error

    def document(self) -> dict[str, Any]:
        """As JSON values: what was read or given, and no default."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Rebased(Lasting):
    """What event and record say of a run that put a new base under the line."""

    event: Name
    before: FolderMd5
    after: FolderMd5


def in_words(error: ValidationError) -> str:
    """The place of the first thing that is wrong, and what is."""
    first = error.errors()[0]
    place = "/".join(str(part) for part in first["loc"]) or "the document"
    return f"{place:.200}: {first['msg'].removeprefix('Value error, '):.120}"


def number_of(document: Any) -> Any:
    """The number of the format that a document says it has."""
    return document.get("schema") if isinstance(document, Mapping) else None
