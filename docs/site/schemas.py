"""Pages made of JSON Schemas: the HTTP API's OpenAPI document, and a bundle's manifest."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args, get_type_hints

from hvq_edge.bundle.manifest import BundleManifest


def http_page(document: dict[str, Any]) -> Iterator[str]:
    """Yield the page of the HTTP API: what each address asks and answers."""
    yield (
        "# HTTP\n\nThe API of [the live page](../how-to/live-page.md#api), of "
        "[images over HTTP](../how-to/serve.md) and of the [review page](../how-to/review.md). A "
        "running service serves this document as `/openapi.json`, with the parts that it has on; "
        f"all of it is [openapi.json](openapi.json).\n\n{document['info']['description']}\n"
    )
    for path, methods in document["paths"].items():
        for method, what in methods.items():
            yield f"## {method.upper()} {path}\n\n{what.get('description', what['summary'])}\n"
            rows = [(one["name"], one["schema"], one) for one in what.get("parameters", ())]
            body = what.get("requestBody", {}).get("content", {})
            rows += [(kind, content.get("schema", {}), {}) for kind, content in body.items()]
            if rows:
                yield "| asked | type | |\n|---|---|---|"
                yield from (f"| `{n}` | {kind_of(s)} | {said(d or s)} |" for n, s, d in rows)
                yield ""
            yield "| answer | type | |\n|---|---|---|"
            for status, answer in what["responses"].items():
                kinds = answer.get("content", {})
                types = ", ".join(
                    kind_of(one["schema"]) if one.get("schema", {}) else f"`{name}`"
                    for name, one in kinds.items()
                )
                yield f"| {status} | {types} | {said(answer)} |"
            yield ""
    yield "## Schemas\n"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f"### {name}\n\n{schema.get('description', '')}\n"
        yield from key_table(schema)


def schema_page() -> Iterator[str]:
    """Yield the page of ``bundle.json``: its JSON Schema, with what the code says of each key."""
    yield (
        "# bundle.json\n\nEvery key of a bundle's manifest, out of its JSON Schema, "
        "[bundle.schema.json](bundle.schema.json). What a program that judges does with them "
        "stands with [the bundle's format](bundle-format.md#the-manifest).\n"
    )
    meanings = dict(said_of_keys(BundleManifest))
    whole = BundleManifest.model_json_schema()
    for name, schema in [("The manifest", whole), *sorted(whole["$defs"].items())]:
        yield f"## {name}\n"
        if schema is not whole:
            yield f"{as_markdown(schema.get('description', 'Any JSON value.'))}\n"
        keys = meanings.get("BundleManifest" if schema is whole else name, {})
        yield from key_table(schema, keys)


def key_table(schema: dict[str, Any], said_of: dict[str, str] | None = None) -> Iterator[str]:
    """Yield the keys of a JSON Schema's object as a table."""
    if "properties" not in schema:
        return
    yield "| key | type | |\n|---|---|---|"
    for key, value in schema["properties"].items():
        meaning = said(value) or said({"description": (said_of or {}).get(key, "")})
        yield f"| `{key}` | {kind_of(value)} | {meaning} |"
    yield ""


def said_of_keys(record: type) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what is said of the keys of a record and of each record in it, by the class's name."""
    seen: set[object] = set()
    left: list[Any] = [record]
    while left:
        kind = left.pop()
        left += get_args(kind)
        if kind in seen or not getattr(kind, "__module__", "").startswith("hvq_edge"):
            continue
        if not isinstance(kind, type):
            continue
        seen.add(kind)
        left += get_type_hints(kind).values()
        yield kind.__name__, dict(docstrings_of(kind))


def docstrings_of(record: type) -> Iterator[tuple[str, str]]:
    """Yield the keys of a class, and of those that it is made of, that have a docstring."""
    for one in reversed(record.__mro__):
        if not one.__module__.startswith("hvq_edge"):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        for key, text in pairwise(tree.body):  # type: ignore[attr-defined]
            match key, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(words))),
                ):
                    yield name, as_markdown(words)


def as_markdown(docstring: str) -> str:
    """Return reStructuredText's literals and roles as Markdown has them; JSON has no ``None``."""
    return (
        re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", docstring)
        .replace("``", "`")
        .replace("`None`", "`null`")
    )


def kind_of(schema: dict[str, Any]) -> str:
    """Return the type that a JSON Schema describes, with a link where it has a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(map(kind_of, choices)))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {'anyOf': schema.get('prefixItems', [{}])}))}"
    if isinstance(values := schema.get("additionalProperties"), dict):
        return f"{kind_of(values)} by name"
    return schema.get("format") or schema.get("type", "any")


def said(schema: dict[str, Any]) -> str:
    """Return a description as one cell of a table."""
    return " ".join(schema.get("description", "").split()).replace("|", "\\|")
