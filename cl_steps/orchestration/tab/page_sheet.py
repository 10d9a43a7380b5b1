"""The tab's own sentences as HTML, in the style of the line's page."""

from __future__ import annotations

from html import escape

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf8; --ink: #1d1c1a; --muted: #66635d; --link: #2f55b8; --rule: #e5e2dc }
@media (prefers-color-scheme: dark) {
  :root { --paper: #151413; --ink: #eceae5; --muted: #a5a199; --link: #9db9ff; --rule: #35332f }
}
* { box-sizing: border-box }
html, body { height: 100% }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.6 Inter, ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif }
main { max-width: 72ch; margin: 0 auto; padding: 96px 32px }
h1 { margin: 0 0 12px; font-size: 1.6rem; line-height: 1.25; letter-spacing: -.018em }
p { margin: 0 0 12px; color: var(--muted) }
code { font: .86em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; color: var(--ink) }
a { color: var(--link); text-underline-offset: .18em }
.framed { display: flex; flex-direction: column }
.framed header { padding: 10px 20px; border-bottom: 1px solid var(--rule); font-size: .9rem }
.framed iframe { flex: 1; width: 100%; border: 0; background: #fff; color-scheme: light }
"""
HEAD = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'


def sentences(title: str, *paragraphs: str) -> bytes:
    """A few sentences; all of it is escaped, and what stands between backquotes is shown as code."""
    words = "".join(f"<p>{_code(escape(paragraph))}</p>" for paragraph in paragraphs)
    return _document(title, f"<main><h1>{escape(title)}</h1>{words}</main>")


def framed(title: str, address: str) -> bytes:
    """Another document of the same folder, in a frame under a link back to the folder's page."""
    frame = f'<iframe title="{escape(title)}" src="{escape(address)}"></iframe>'
    return _document(title, f'<header><a href="./">Back to the line</a></header>{frame}', "framed")


def _document(title: str, body: str, kind: str = "") -> bytes:
    head = f"{HEAD}<title>{escape(title)}</title><style>{STYLE}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body class="{kind}">{body}</body></html>'.encode()


def _code(sentence: str) -> str:
    parts = sentence.split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))
