"""What a file imports, read from its source: nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from helpers.paths import ROOT


@dataclass(frozen=True)
class Import:
    """One imported name, `from a import b` as `a.b`."""

    name: str
    line: int
    lazy: bool
    """Inside a function: runs when the function is called, not when the file is imported."""

    def is_of(self, packages: tuple[str, ...]) -> bool:
        return any(self.name == name or self.name.startswith(f"{name}.") for name in packages)


@cache  # several rules read the same files
def imports_of(source: str, module: str = "hvq_edge.module") -> list[Import]:
    """Every import that can run; those under `if TYPE_CHECKING` never do."""
    return list(_walk(ast.parse(source), module, lazy=False))


def _walk(node: ast.AST, module: str, *, lazy: bool) -> Iterator[Import]:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            children: list[ast.AST] = list(node.orelse)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            lazy = True
            children = list(ast.iter_child_nodes(node))
        case _:
            children = list(ast.iter_child_nodes(node))
    match node:
        case ast.Import():
            yield from (Import(alias.name, node.lineno, lazy) for alias in node.names)
        case ast.ImportFrom():
            parts = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield from (Import(f"{base}.{alias.name}", node.lineno, lazy) for alias in node.names)
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            yield Import(name, node.lineno, lazy)
    for child in children:
        yield from _walk(child, module, lazy=lazy)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "hvq_edge":  # export/ and calibration/ live inside the import package
        parts = ("hvq_edge", *parts)
    return ".".join(parts)
