"""Every small fault that can be put into a module: one edit each, found in its syntax tree.

Left alone: annotations, decorators, docstrings, what an error says, asserts (and `zip`'s `strict`), and `print`.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
PAIRS = (
    ("min", "max"),
    ("any", "all"),
    ("startswith", "endswith"),
    ("issubset", "issuperset"),
    ("sorted", "list"),
    ("reversed", "iter"),
)
CALLS = dict(PAIRS) | {b: a for a, b in PAIRS[:4]}
REMOVED = (ast.Raise, ast.AugAssign, ast.Continue, ast.Break, ast.Delete)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
Found = tuple[str, ast.stmt, ast.expr | ast.stmt, str]
"""Scope, the statement around it, a node, and what stands in its place."""


@dataclass(frozen=True)
class Mutant:
    """One fault: bytes `start` to `end` of a module replaced; `scope` and `at` say where without a line number.

    `statement` is the first line of the statement around it.
    """

    path: str
    line: int
    scope: str
    at: str
    change: str
    statement: str
    unit: str
    start: int
    end: int
    text: str

    def applied(self, source: bytes) -> bytes:
        """The module with this fault."""
        return source[: self.start] + self.text.encode() + source[self.end :]


def mutants(path: str, source: bytes) -> list[Mutant]:
    """All faults of a module, in its order; `unit` is a digest of the top-level statement around each."""
    tree, seen, found = ast.parse(source), Counter[tuple[str, ...]](), []
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = source.decode().splitlines()
    for top in tree.body:
        whole = source[starts[top.lineno - 1] : starts[top.end_lineno or top.lineno]]
        for scope, around, node, new in _faults(top, "", top):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
            change = f"{ast.unparse(node)} -> {new}"
            place = (scope, lines[node.lineno - 1].strip(), change)
            seen[place] += 1
            unit = hashlib.sha256(whole + str(seen[place]).encode()).hexdigest()[:12]
            text = new if isinstance(node, ast.stmt) else f"({new})"
            statement = lines[around.lineno - 1].strip()
            mutant = Mutant(path, node.lineno, *place, statement, unit, start, end, text)
            if _compiles(mutant.applied(source)):
                found.append(mutant)
    return found


def _compiles(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _faults(node: ast.AST, scope: str, around: ast.stmt) -> Iterator[Found]:
    """The faults of a node and of all below it."""
    if isinstance(node, SCOPES):
        scope = f"{scope}.{node.name}".lstrip(".")
    if isinstance(node, ast.stmt):
        around = node
        yield from ((scope, node, node, text) for text in _statements(node))
        if isinstance(node, ast.Return) and node.value and not _is_none(node.value):
            yield scope, node, node.value, "None"
        if isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Compare | ast.UnaryOp):
            yield scope, node, node.test, f"not ({ast.unparse(node.test)})"
    elif isinstance(node, ast.expr):
        yield from ((scope, around, node, ast.unparse(new)) for new in _expressions(node))
    for child in _children(node):
        yield from _faults(child, scope, around)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What of a node takes part in deciding."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom) or _is_print(node):
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        yield from (child for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST))


def _statements(node: ast.stmt) -> Iterator[str]:
    """A statement that does something is left out."""
    stored = isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple)
    called = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not _is_print(node.value)
    if isinstance(node, REMOVED) or stored or called or (isinstance(node, ast.Return) and node.value is None):
        yield "pass"


def _expressions(node: ast.expr) -> Iterator[ast.expr]:  # noqa: PLR0912 -- a table, a case a kind
    """The same expression, a little wrong."""
    match node:
        case ast.Compare():
            for place, op in enumerate(node.ops):
                for new in COMPARISONS[type(op)]:
                    yield _with(node, ops=[*node.ops[:place], new(), *node.ops[place + 1 :]])
        case ast.BoolOp():
            yield _with(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
            for place in range(len(node.values)):
                rest = [*node.values[:place], *node.values[place + 1 :]]
                yield rest[0] if len(rest) == 1 else _with(node, values=rest)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.BinOp() if type(node.op) in ARITHMETIC and not (_is_text(node.left) or _is_text(node.right)):
            yield _with(node, op=ARITHMETIC[type(node.op)]())
        case ast.Constant(value=bool()):
            yield _with(node, value=not node.value)
        case ast.Constant(value=int() | float()):
            yield _with(node, value=node.value + 1 if isinstance(node.value, int) else node.value * 2 + 0.001)
            if node.value:
                yield _with(node, value=type(node.value)(0))
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            kept = [] if CALLS[name] == "list" else node.keywords
            yield _with(node, func=ast.Name(CALLS[name]), keywords=kept)
        case ast.Call(func=ast.Attribute(attr=name)) if name in CALLS:
            yield _with(node, func=_with(node.func, attr=CALLS[name]))
        case ast.IfExp():
            yield _with(node, body=node.orelse, orelse=node.body)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            for place, part in enumerate(node.generators):
                if part.ifs:
                    free = _with(part, ifs=[])
                    yield _with(node, generators=[*node.generators[:place], free, *node.generators[place + 1 :]])


def _with(node: ast.AST, **fields: object) -> ast.expr:
    new = copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new  # type: ignore[return-value]


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_text(node: ast.expr) -> bool:
    """Then another operator is an error wherever the line is run: a path, a sentence."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_print(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
