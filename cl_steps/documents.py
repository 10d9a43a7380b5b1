"""YAML and JSON that somebody else wrote, read within bounds (size, depth, aliases, types); and JSON as we write it.

A few lines can stand for billions of values (an alias of aliases), or for themselves (`&a [*a]`). Whoever reads such a
file with a library's own loader meets a dozen kinds of errors, or waits for ever. Here all of it is `Unreadable`, with
the line.

YAML is 1.1, as PyYAML reads it, but for numbers: `5e-5` and `1.0e9` are some, and `12:30:45` (to the base of 60) and
`017` (to the base of 8) are not what people mean, nor what DVC reads. Keys are text and stand once; values are text,
numbers, true and false, nothing, lists and mappings. Days stay text, as in YAML 1.2: one that no calendar has is the
mistake of its key, and not of the file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from yaml.composer import Composer, ComposerError
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.events import AliasEvent
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

Json = Mapping[str, Any]
"""A JSON object whose keys others define: Kubernetes, MLflow, whoever lands images; or a page's, hostile until read."""
Document = dict[str, Any]
"""A JSON object that we answer with, such as what a command prints with `--json`."""
YAML_BYTES = 2 * 2**20
JSON_BYTES = 16 * 2**20
DEPTH = 32
"""How deep lists and mappings may lie in one another."""
NODES = 100_000
"""How many values, keys included, a YAML file may stand for, each alias counted as what it stands for."""
JSON_NODES = 2_000_000
NUMBER = re.compile(r"(?![-+]?0[0-9_]*[1-9])[^:]{1,64}")
"""What may be a number at all: not to the base of 8 or 60, and no longer than this."""
TAG = "tag:yaml.org,2002:"
FLOAT = re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")

try:
    from yaml._yaml import CParser as Parser
except ImportError:  # PyYAML without libyaml reads the same, ten times as slowly.
    from yaml.parser import Parser as PlainParser
    from yaml.reader import Reader
    from yaml.scanner import Scanner

    class Parser(Reader, Scanner, PlainParser):  # type: ignore[no-redef]
        """The same events from plain Python."""

        def __init__(self, stream: bytes) -> None:
            Reader.__init__(self, stream)
            Scanner.__init__(self)
            PlainParser.__init__(self)


class Unreadable(ValueError):
    """What is wrong with a document, in a few words with the line where there is one."""


def read_yaml(content: bytes, *, digests: bool = False) -> Any:
    """The one document of a YAML file (UTF-8); raises Unreadable.

    With `digests` what DVC and we write is read: there `5e-5` and `12:30` are text (a digest in a million is such).
    """
    if len(content) > YAML_BYTES:
        raise Unreadable(f"it has {len(content)} bytes, and at most {YAML_BYTES} are read")
    try:
        content.decode()
        return (_Loader if digests else _Numbers)(content).get_single_data()
    except UnicodeDecodeError as error:
        raise Unreadable(f"line {_line(content, error.start)}: it is not UTF-8") from error
    except yaml.YAMLError as error:
        raise Unreadable(_words(error, content)) from error


def read_json(content: bytes) -> Any:
    """A JSON document: finite numbers, text that can be written again; raises Unreadable."""
    if len(content) > JSON_BYTES:
        raise Unreadable(f"it has {len(content)} bytes, and at most {JSON_BYTES} are read")
    try:
        value = json.loads(content, parse_constant=_no_number)
    except RecursionError as error:
        raise Unreadable(f"it is nested more than {DEPTH} deep") from error
    except ValueError as error:
        raise Unreadable(str(error)) from error
    check_plain(value)
    return value


def check_plain(value: Any) -> None:
    """Raise Unreadable where a value, as JSON has them, is too deep, too large, or cannot be written again."""
    waiting, count = [(value, 1)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if depth > DEPTH or count > JSON_NODES:
            raise Unreadable(f"it is nested more than {DEPTH} deep, or holds more than {JSON_NODES} values")
        if isinstance(item, dict):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple):
            waiting += [(part, depth + 1) for part in item]
        elif isinstance(item, str) and not item.isascii():
            _check_text(item)
        elif isinstance(item, float) and not math.isfinite(item):
            _no_number(str(item))
        elif not isinstance(item, str | int | float | None):
            raise Unreadable(f"{str(item)[:40]} is neither text nor a number")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unreadable("it holds half a character (a lone surrogate)") from error


def _no_number(text: str) -> NoReturn:
    raise Unreadable(f"{text} is no number")


def _checked(build: Callable[[Any, Any], Any], kind: str) -> Callable[[Any, Any], Any]:
    """A constructor of a scalar, whatever it raises being one error with its line."""

    def construct(loader: Any, node: Any) -> Any:
        if not isinstance(node, ScalarNode):
            raise ConstructorError(None, None, f"{kind} holds no other values", node.start_mark)
        value = str(node.value)
        if "number" in kind and not NUMBER.fullmatch(value):
            if not isinstance(loader, _Numbers):
                return value
            raise ConstructorError(None, None, f"{value[:40]!r} is not {kind}", node.start_mark)
        try:
            found = build(loader, node)
            return found if not isinstance(found, str) or found.isascii() else found.encode().decode()
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
            raise ConstructorError(None, None, f"{value[:40]!r} is not {kind}", node.start_mark) from error

    return construct


SCALARS: dict[str, tuple[Any, str]] = {
    "null": (SafeConstructor.construct_yaml_null, "nothing"),
    "bool": (SafeConstructor.construct_yaml_bool, "true or false"),
    "int": (SafeConstructor.construct_yaml_int, "a whole number"),
    "float": (SafeConstructor.construct_yaml_float, "a number"),
    "str": (SafeConstructor.construct_yaml_str, "text"),
    "value": (SafeConstructor.construct_yaml_str, "text"),  # a lone `=`
    "merge": (SafeConstructor.construct_yaml_str, "text"),  # `<<` as a value
}


class _Loader(Composer, Parser, SafeConstructor, Resolver):
    """PyYAML's safe loader, the composing in Python over libyaml's events, so that nodes are counted as they come."""

    yaml_constructors: ClassVar[Any] = {
        **{f"{TAG}{kind}": _checked(build, words) for kind, (build, words) in SCALARS.items()},
        f"{TAG}seq": SafeConstructor.construct_yaml_seq,
        f"{TAG}map": SafeConstructor.construct_yaml_map,
        None: SafeConstructor.construct_undefined,
    }
    anchors: Any

    def __init__(self, stream: bytes) -> None:
        Parser.__init__(self, stream)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self._depth = self._deepest = self._count = 0
        self._sizes: dict[str, tuple[int, int]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As PyYAML's, with what each anchor stands for noted: how many nodes, and how deep."""
        event: Any = self.peek_event()
        if isinstance(event, AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._sizes:
                raise _fault(f"the alias *{event.anchor:.40} stands for itself", event)
            self._take(event, *self._sizes.get(str(event.anchor), (1, 1)))
            return super().compose_node(parent, index)
        before, deepest, self._deepest = self._count, self._deepest, 0
        self._take(event, 1, 1)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._sizes[event.anchor] = (self._count - before, self._deepest - self._depth)
        self._deepest = max(deepest, self._deepest)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """As PyYAML's; a key is text, and stands once."""
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if not (isinstance(key, ScalarNode) and key.tag in (f"{TAG}str", f"{TAG}merge")):
                raise _fault("a key must be text: write it in quotes", key)
            if key.value in seen:
                raise _fault(f"the key {key.value[:40]!r} is there twice", key)
            seen.add(key.value)
        return node

    def _take(self, event: Any, nodes: int, height: int) -> None:
        self._count += nodes
        self._deepest = max(self._deepest, self._depth + height)
        if self._count > NODES:
            raise _fault(f"it stands for more than {NODES} values", event)
        if self._deepest > DEPTH:
            raise _fault(f"it is nested more than {DEPTH} deep", event)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != f"{TAG}timestamp"]
    for first, found in Resolver.yaml_implicit_resolvers.items()
}


class _Numbers(_Loader):
    """The same with numbers as people write them."""


_Numbers.add_implicit_resolver(f"{TAG}float", FLOAT, list("-+.0123456789"))


def _fault(words: str, at: Any) -> ComposerError:
    return ComposerError(None, None, words, at.start_mark)


def _words(error: yaml.YAMLError, content: bytes) -> str:
    """What PyYAML says, in one line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else _line(content, getattr(error, "position", 0))
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be understood"
    # Where PyYAML's sentence begins with its context, the problem alone is half a sentence.
    context = getattr(error, "context", None) if problem.startswith(("but ", "second ")) else None
    return f"line {line}: {f'{context}, ' if context else ''}{problem}"


def _line(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1


def write_json(path: Path, document: Json) -> None:
    """Write JSON (sorted keys, a line a value) through a temporary file, so that no half file is ever seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(json_text(document), encoding="utf-8")
    draft.replace(path)


def json_text(document: Json) -> str:
    """The one way we write JSON: sorted, indented, no NaN."""
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
