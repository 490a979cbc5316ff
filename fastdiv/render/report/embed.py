"""Embedding: data, scripts and styles as they stand in one HTML file, and what it may load."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from fastdiv.errors import UsageError
from fastdiv.render.pictures.picture import plotly_or_error
from fastdiv.render.tables.table import LARGEST_EXACT

Where = Literal["inline", "cdn", "directory"]
CDN = "https://cdn.plot.ly"
BESIDE = "plotly.min.js"
STYLE_MARK = r'getElementById\("([0-9a-f]{64})"\)'
SCRIPTS = (
    "elements.js", "numbers.js", "choice.js", "pictures.js", "tables.js", "copying.js",
    "verdict.js", "controls.js", "start.js",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plotly:
    """Where plotly's script comes from.

    Attributes
    ----------
    inline : str or None
        The script itself, compressed.
    address : str or None
        Where it lies otherwise: on a server, or beside the report.
    integrity : str or None
        Its hash, of one on a server.
    source : str
        What the page's policy allows.
    marks : tuple of str
        Ids of the style elements for maps that it adds to pages which lack them. No map is drawn
        here: empty ones keep it from adding 80 kB that the policy forbids.
    beside : str or None
        What is to be written beside the report.
    """

    inline: str | None
    address: str | None
    integrity: str | None
    source: str
    marks: tuple[str, ...]
    beside: str | None = None


def plotly_script(where: str) -> Plotly:
    """Return plotly's script as the installed package has it.

    Raises
    ------
    UsageError
        Where plotly is not installed, or `where` is none of the three.
    """
    if where not in ("inline", "cdn", "directory"):
        raise UsageError(
            f"plotly's script cannot be {where!r}: take 'inline', 'cdn' or 'directory'"
        )
    plotly_or_error()
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    script: str = get_plotlyjs()
    marks = tuple(dict.fromkeys(re.findall(STYLE_MARK, script)))
    if where == "inline":
        return Plotly(compressed(script), None, None, source_of(script), marks)
    if where == "cdn":
        address = f"{CDN}/plotly-{get_plotlyjs_version()}.min.js"
        return Plotly(None, address, source_of(script).strip("'"), address, marks)
    return Plotly(None, BESIDE, None, "'self'", marks, beside=script)


def source_of(script: str) -> str:
    """Return the source by which a policy allows this very script or style, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def policy(scripts: list[str], styles: list[str]) -> str:
    """Return the content security policy of the page: nothing is loaded, nothing is sent.

    Parameters
    ----------
    scripts, styles : list of str
        Sources that are allowed.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(scripts)}",
            f"style-src-elem {' '.join(styles)}",
            # plotly places what it draws by attributes; none of them holds a name from the data.
            "style-src-attr 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def page_file(name: str) -> str:
    """Return a file of the page, as it is packaged."""
    return (resources.files("fastdiv.render.report") / "page" / name).read_text("utf-8")


def script() -> str:
    """Return the page's own script: all its files, as one function."""
    parts = "\n".join(page_file(name) for name in SCRIPTS)
    return f'(function () {{\n"use strict";\n{parts}\n}})();\n'


def packed(content: Any) -> str:
    """Return data as the page holds it: JSON, compressed, in base 64.

    Three to ten times smaller than plain JSON, and no character of it can be taken for markup.
    """
    text = json.dumps(plain(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return compressed(text)


def compressed(text: str) -> str:
    """Return text as gzip makes it, in base 64."""
    # Half of a surrogate pair, which a damaged name may hold, has no UTF-8.
    made = gzip.compress(text.encode("utf-8", "replace"), compresslevel=9, mtime=0)
    return base64.b64encode(made).decode()


def plain(content: Any) -> Any:
    """Return data without the numbers that JSON, or a page, lacks.

    Infinities are words, NaN is nothing, and integers that a page would round are text.
    """
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None if math.isnan(content) else "inf" if content > 0 else "-inf"
    if isinstance(content, int) and abs(content) > LARGEST_EXACT:
        return str(content)
    if content is None or isinstance(content, bool | int | float | str):
        return content
    raise TypeError(f"JSON holds no {type(content).__name__}: {content!r:.60}")
