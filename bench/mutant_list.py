"""The single changes that `bench/mutants.py` makes to a source file."""

import ast
import bisect
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("constant", "comparison", "arithmetic", "boolean", "name", "statement")

_COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
_UNARY: dict[type[ast.unaryop], tuple[str, str]] = {
    ast.USub: ("-", "arithmetic"),
    ast.Invert: ("~", "arithmetic"),
    ast.Not: ("not", "boolean"),
}
_NAMES = {"min": "max", "minimum": "maximum", "argmin": "argmax", "nanmin": "nanmax", "any": "all"}
_NAMES |= {after: before for before, after in _NAMES.items()}
_REPORTING = {"print", "warn", "warning", "debug", "info", "error", "exception", "log", "report"}
"""Calls of these only report."""
_UNSEEN_KEYWORDS = {"strict"}
"""`zip(…, strict=True)` guards against the impossible."""


@dataclass(frozen=True)
class Mutant:
    """Bytes `start` to `end` of a source give way to `after`."""

    kind: str
    line: int
    start: int
    end: int
    before: str
    after: str

    def apply(self, source: str) -> str:
        """The changed source; all other bytes stay."""
        data = source.encode()
        return (data[: self.start] + self.after.encode() + data[self.end :]).decode()

    def lines(self, source: str) -> tuple[str, str]:
        """The first changed line, before and after."""
        index = self.line - 1
        return tuple(text.splitlines()[index].strip() for text in (source, self.apply(source)))  # type: ignore[return-value]


def mutants(source: str, kinds: tuple[str, ...] = KINDS) -> list[Mutant]:
    """All mutants of a module, by position. Docstrings, annotations, decorators, `raise`, `assert`, f-strings, `__all__` and
    calls that only report are left alone; so are changes that leave the syntax tree as it was or do not compile."""
    tree = ast.parse(source)
    finder = _Finder(source)
    finder.visit(tree)
    original, found = ast.dump(tree), []
    for mutant in sorted(finder.found, key=lambda m: (m.start, m.end, m.after)):
        if mutant.kind not in kinds:
            continue
        try:
            changed = ast.parse(mutant.apply(source))
        except SyntaxError:
            continue
        if ast.dump(changed) != original:
            found.append(mutant)
    return found


class _Finder(ast.NodeVisitor):
    """Collects mutants in the parts of a tree that decide something."""

    def __init__(self, source: str) -> None:
        lines = source.encode().splitlines(keepends=True)
        self._begins = [0]
        for line in lines:
            self._begins.append(self._begins[-1] + len(line))
        self._data = source.encode()
        self._tokens = list(self._words(source, lines))
        self._starts = [start for start, _ in self._tokens]
        self.found: list[Mutant] = []

    def _words(self, source: str, lines: list[bytes]) -> Iterator[tuple[int, str]]:
        """(byte, text) of each operator and name."""
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type in (tokenize.OP, tokenize.NAME):
                row, column = token.start
                before = lines[row - 1].decode()[:column]
                yield self._begins[row - 1] + len(before.encode()), token.string

    def _span(self, node: ast.AST) -> tuple[int, int]:
        start = self._begins[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return start, self._begins[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def _add(self, kind: str, start: int, end: int, after: str) -> None:
        line = bisect.bisect_right(self._begins, start)
        self.found.append(Mutant(kind, line, start, end, self._data[start:end].decode(), after))

    def _swap(self, kind: str, between: tuple[int, int], before: str, after: str) -> None:
        """Changes the operator `before` (of one or two words), looked for among the tokens of a span."""
        words = before.split()
        first, last = (bisect.bisect_left(self._starts, at) for at in between)
        for at in range(first, last):
            if [text for _, text in self._tokens[at : at + len(words)]] == words:
                start, text = self._tokens[at + len(words) - 1]
                self._add(kind, self._starts[at], start + len(text), after)
                return

    # What is left alone.
    def visit_Raise(self, node: ast.Raise) -> None: ...
    def visit_Assert(self, node: ast.Assert) -> None: ...
    def visit_JoinedStr(self, node: ast.JoinedStr) -> None: ...

    def visit_Assign(self, node: ast.Assign) -> None:
        if not any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in _UNSEEN_KEYWORDS:
            self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not _is_type(node.value):
            self.generic_visit(node)

    # What is changed.
    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            afters = [str(not value)]
        elif isinstance(value, int):
            afters = [str(other) for other in ({0: (1,), 1: (0, 2)}.get(value) or (value + 1, value - 1))]
        elif isinstance(value, float):
            afters = [repr({0.0: 1.0, 1.0: 0.0}.get(value, 2 * value))]
        else:
            return
        for after in afters:
            self._add("constant", *self._span(node), after)

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            before, after = _COMPARISONS[type(operator)]
            self._swap("comparison", (self._span(left)[1], self._span(right)[0]), before, after)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if any(_is_text(side) for side in (node.left, node.right)):
            return
        if type(node.op) in _ARITHMETIC:
            self._swap("arithmetic", (self._span(node.left)[1], self._span(node.right)[0]), *_ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        is_integer = isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int)
        if type(node.op) in _UNARY and not is_integer:  # -1 as 1 is the same axis of a matrix; as -2 and -0 it is tried
            text, kind = _UNARY[type(node.op)]
            start = self._span(node)[0]
            self._add(kind, start, start + len(text), " " if kind == "boolean" else "")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        before, after = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._swap("boolean", (self._span(left)[1], self._span(right)[0]), before, after)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in _NAMES:
            self._add("name", *self._span(node), _NAMES[node.id])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in _NAMES:
            end = self._span(node)[1]
            self._add("name", end - len(node.attr), end, _NAMES[node.attr])
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in _ARITHMETIC:
            before, after = (f"{text}=" for text in _ARITHMETIC[type(node.op)])
            self._swap("arithmetic", (self._span(node.target)[1], self._span(node.value)[0]), before, after)
        self._add("statement", *self._span(node), "pass")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            if _name_of(node.value.func) in _REPORTING:
                return
            self._add("statement", *self._span(node), "pass")
        self.generic_visit(node)


def _name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _is_type(node: ast.expr) -> bool:
    """Whether a subscripted name is a type (`tuple[int, ...]`, `Float[Array, "B 1"]`) by its look."""
    name = _name_of(node)
    return name in {"tuple", "list", "dict", "set", "type"} or (name[:1].isupper() and not name.isupper())
