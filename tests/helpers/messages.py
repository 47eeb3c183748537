"""The messages that pages, scripts and code ask a catalogue for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from helpers.paths import ROOT
from jinja2 import Environment, nodes

PAGES = ROOT / "hvq_edge" / "stream" / "live_page"
_ONE = re.compile(r'\bsay\(\s*("(?:[^"\\]|\\.)*")')
_TWO = re.compile(r'\bmany\([^,]+,\s*("(?:[^"\\]|\\.)*"),\s*("(?:[^"\\]|\\.)*")')


def of_script(text: str) -> set[str]:
    """What a module of the page says."""
    found = _ONE.findall(text) + [one for pair in _TWO.findall(text) for one in pair]
    return {ast.literal_eval(one) for one in found}


def of_template(text: str) -> set[str]:
    """What a template says; a value that it translates (``word``) stands in the code."""
    found = set()
    for call in Environment().parse(text).find_all(nodes.Call):
        name = getattr(call.node, "name", "")
        taken = {"_": call.args[:1], "many": call.args[1:3]}.get(name, [])
        assert all(isinstance(one, nodes.Const) for one in taken), "a value would be taken for HTML"
        found |= {one.value for one in taken}
    return found


def of_code(path: Path) -> set[str]:
    """What a module says in the language that was chosen."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Call(
                func=ast.Name("say") | ast.Call(func=ast.Name("current")),
                args=[ast.Constant(str(text)), *_],
            ):
                found.add(text)
    return found


def of_pages() -> set[str]:
    """All that the pages of a server say."""
    scripts = [of_script(one.read_text("utf-8")) for one in (PAGES / "page").glob("*.js")]
    templates = [of_template(one.read_text("utf-8")) for one in (PAGES / "pages").glob("*.html")]
    return set().union(*scripts, *templates)


def of_reports() -> set[str]:
    """All that reports say by themselves."""
    templates = [
        of_template(one.read_text("utf-8"))
        for one in (ROOT / "hvq_edge").rglob("*.html")
        if not one.is_relative_to(PAGES)
    ]
    code = [
        of_code(one)
        for one in (ROOT / "hvq_edge").rglob("*.py")
        if "hvq_edge.design.language" in one.read_text("utf-8")
    ]
    return set().union(*templates, *code)


def sentences(path: Path, names: Iterable[str], *, keys: bool = False) -> Iterator[str]:
    """Every text of some functions, classes and values of a module, ``{}`` for what varies.

    Keys of dictionaries are for the code, but where they are headings (``keys``).
    """
    wanted = set(names)
    for node in ast.parse(path.read_text("utf-8")).body:
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.Assign(targets=[ast.Name(name)])
                | ast.AnnAssign(target=ast.Name(name))
            ):
                pass
            case _:
                continue
        if name in wanted:
            wanted.discard(name)
            yield from _texts(node, keys=keys)
    assert not wanted, f"{path} has no {wanted}"


def _texts(node: ast.AST, *, keys: bool) -> Iterator[str]:
    match node:
        case ast.JoinedStr(values=parts):
            yield "".join(one.value if isinstance(one, ast.Constant) else "{}" for one in parts)
            for part in parts:
                if isinstance(part, ast.FormattedValue):
                    yield from _texts(part.value, keys=keys)
            return
        case ast.Constant(value=str(text)):
            yield text
            return
        case ast.Dict(values=values) if not keys:
            for one in values:
                yield from _texts(one, keys=keys)
            return
        case ast.Call(func=ast.Attribute(value=ast.Name("logger"))):
            return
        case ast.Expr(value=ast.Constant()):
            return
    for child in ast.iter_child_nodes(node):
        yield from _texts(child, keys=keys)
