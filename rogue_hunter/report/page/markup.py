"""HTML and SVG as text. What is put between tags or into an attribute is escaped here."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable

from rogue_hunter import __version__
from rogue_hunter.text.format import visible


class Markup(str):
    """Text that is markup already; any other text is escaped."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """A value as text between tags: markup as it is, the parts of a list one after the other, None as nothing."""
    if value is None or value is False:
        return Markup("")
    if isinstance(value, Markup):
        return value
    if isinstance(value, Iterable) and not isinstance(value, str):
        return Markup("".join(map(escaped, value)))
    return Markup(html.escape(visible(str(value))))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. Attributes that are None are left out; `class_` is class, and an underscore a hyphen."""
    made = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(visible(_number(value)))}"'
                   for key, value in attributes.items() if value is not None)
    return Markup(f"<{name}{made}>{escaped(children)}</{name}>")


def _number(value: object) -> str:
    """A tenth of a pixel is enough: it makes the file half as long."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def document(title: str, style: str, body: Iterable[object]) -> str:
    """A whole page that loads nothing and runs nothing: its style is named by hash, everything else is forbidden."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    metas = "".join(f'<meta {name}="{key}" content="{html.escape(content)}">\n' for name, key, content in (
        ("http-equiv", "Content-Security-Policy", policy), ("name", "viewport", "width=device-width, initial-scale=1"),
        ("name", "color-scheme", "light dark"), ("name", "referrer", "no-referrer"),
        ("name", "generator", f"rogue-hunter {__version__}")))
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{metas}{tag("title", title)}\n'
            f"<style>{style}</style>\n</head>\n{tag('body', body)}\n</html>\n")
