"""One small change at a time: the mistakes that people make and that reviewers miss.

Not changed: annotations, decorators, docstrings, imports, texts for people (anything with a blank, and f-strings).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}
_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.BitAnd: "|",
    ast.BitOr: "&", ast.LShift: ">>", ast.RShift: "<<", ast.Pow: "*",
}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "startswith": "endswith", "endswith": "startswith"}
_WORD = re.compile(r"[\w.:/-]{1,40}")


@dataclass(frozen=True)
class Mutant:
    """`text` stands in the place of source[start:end]; `line` is where, `change` what, for people."""

    start: int
    end: int
    text: str
    line: int
    change: str

    def apply(self, source: bytes) -> bytes:
        """The changed source."""
        return source[:self.start] + self.text.encode() + source[self.end:]


class _Finder(ast.NodeVisitor):
    def __init__(self, source: bytes) -> None:
        self.source = source
        starts = [0]
        for line in source.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        self.starts = starts
        self.found: list[Mutant] = []

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self.span(node)
        return self.source[start:end].decode()

    def add(self, node: ast.expr | ast.stmt, text: str, change: str) -> None:
        self.found.append(Mutant(*self.span(node), text, node.lineno, change))

    def between(self, left: ast.expr, right: ast.expr, new: str, lineno: int) -> None:
        """Exchange the operator that stands between two operands."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = self.source[start:end].decode()
        old = re.search(r"is\s+not|not\s+in|[^\s()\\]+", gap)
        if old is not None and "#" not in gap:
            self.found.append(Mutant(start + old.start(), start + old.end(), new, lineno, f"{old.group()} -> {new}"))

    # -- statements ------------------------------------------------------------------------------------------------

    def _body(self, node: ast.FunctionDef | ast.ClassDef | ast.Module | ast.AsyncFunctionDef) -> None:
        body = node.body
        previous_was_assignment = False
        for statement in body:
            text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if not (text and (statement is body[0] or previous_was_assignment)):
                self.visit(statement)
            previous_was_assignment = isinstance(statement, (ast.Assign, ast.AnnAssign))

    visit_Module = visit_ClassDef = _body

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in (*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)):
            self.visit(default)
        self._body(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = [t.id for t in node.targets if isinstance(t, ast.Name)]
        if names == ["__slots__"] or names == ["__all__"]:
            return
        if any(isinstance(t, (ast.Attribute, ast.Subscript)) for t in node.targets):
            self.add(node, "pass", f"without `{self.text(node)[:60]}`")
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.add(node, "pass", f"without `{self.text(node)[:60]}`")
        self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.add(node, "pass", f"without `{self.text(node)[:60]}`")
        self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.add(node, "pass", "no raise")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            if not (isinstance(node.value, ast.Constant) and node.value.value is None):
                self.add(node.value, "None", "return None")
            self.visit(node.value)

    def visit_Break(self, node: ast.Break) -> None:
        self.add(node, "continue", "break -> continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self.add(node, "break", "continue -> break")

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self._test(node.test)
            self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._test(node.test)
        self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    # -- expressions -----------------------------------------------------------------------------------------------

    def _test(self, test: ast.expr) -> None:
        """The opposite condition, where no operator in it has an opposite of its own."""
        if not isinstance(test, (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)):
            self.add(test, f"(not ({self.text(test)}))", f"not {self.text(test)[:60]}")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._test(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._test(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            self.between(left, right, _COMPARE[type(op)], node.lineno)
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        new = "or" if isinstance(node.op, ast.And) else "and"
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between(left, right, new, right.lineno)
            if isinstance(left, (ast.Call, ast.Name, ast.Attribute)):
                self._test(left)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.add(node, f"({self.text(node.operand)})", "without not")
        elif isinstance(node.op, ast.USub):
            self.add(node, f"({self.text(node.operand)})", "without -")
            return
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        new = _BINARY.get(type(node.op))
        percent_format = isinstance(node.op, ast.Mod) and isinstance(node.left, (ast.Constant, ast.JoinedStr))
        if new is not None and not percent_format:
            self.between(node.left, node.right, new, node.lineno)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in _CALLS:
            self.add(node.func, _CALLS[node.func.id], f"{node.func.id} -> {_CALLS[node.func.id]}")
        elif isinstance(node.func, ast.Attribute) and node.func.attr in _CALLS:
            end = self.span(node.func)[1]
            name = node.func.attr
            self.found.append(Mutant(end - len(name), end, _CALLS[name], node.lineno, f"{name} -> {_CALLS[name]}"))
        if isinstance(node.func, ast.Name) and node.func.id in ("cast", "TypeVar", "NewType"):
            return
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.add(node, str(not value), f"{value} -> {not value}")
        elif isinstance(value, (int, float)):
            self.add(node, repr(value + 1), f"{value} -> {value + 1}")
        elif isinstance(value, str) and _WORD.fullmatch(value):
            self.add(node, repr(value + "XX"), f"{value!r} -> {value + 'XX'!r}")
        elif isinstance(value, bytes) and value:
            self.add(node, repr(value + b"XX"), f"{value!r} -> {value + b'XX'!r}")


def mutants(source: bytes) -> Iterator[Mutant]:
    """Every change, in the order of the source; what is no longer Python is left out."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    seen: set[tuple[int, int, str]] = set()
    for mutant in sorted(finder.found, key=lambda m: (m.start, m.end, m.text)):
        key = (mutant.start, mutant.end, mutant.text)
        if key in seen:
            continue
        seen.add(key)
        try:
            compile(mutant.apply(source), "mutant", "exec")
        except (SyntaxError, ValueError):
            continue
        yield mutant
