"""Building the report: what a run tells, written as one HTML file, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdiv.errors import UsageError
from fastdiv.render.report.contents import contents
from fastdiv.render.report.embed import (
    Plotly,
    packed,
    page_file,
    plotly_script,
    policy,
    script,
    source_of,
)

if TYPE_CHECKING:
    from fastdiv.run import Run

# Of the style elements that plotly leaves empty, or fills rule by rule.
EMPTY_STYLE = source_of("")


def write_report(
    run: Run,
    path: str | os.PathLike[str],
    *,
    compare: tuple[int | str, int | str] | None = None,
    splits: Iterable[str] | None = None,
    plotly: str = "inline",
    links: str | None = None,
) -> None:
    """Write the report of a run; see `Run.report`."""
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{target} is a directory: name a file, such as {target / 'report.html'}")
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is not a file: name one, such as report.html")
    drawn = plotly_script(plotly)
    environment = _environment()
    made = contents(run, compare=compare, splits=splits, column=links)
    page = _page(environment, made, drawn)
    if drawn.beside is not None:
        _write(target.absolute().parent / str(drawn.address), drawn.beside)
    _write(target, page)


def _environment() -> Any:
    """Return jinja2's environment, in which every name is escaped."""
    try:
        import jinja2
    except ImportError as error:
        raise UsageError(
            "the report is filled by jinja2, which is not installed: pip install 'fastdiv[report]'"
        ) from error
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)


def _page(environment: Any, made: dict[str, Any], drawn: Plotly) -> str:
    """Fill the page."""
    from markupsafe import Markup

    own, style = script(), page_file("report.css")
    allowed = [source_of(own), drawn.source]
    page: str = environment.from_string(page_file("report.html.j2")).render(
        policy=policy(allowed, [source_of(style), EMPTY_STYLE]),
        title=made["data"]["title"],
        read=made["data"]["read"],
        name=made["name"],
        style=Markup(style),
        script=Markup(own),
        data=Markup(packed(made["data"])),
        plotly=drawn,
        texts=made["texts"],
        glossary=made["glossary"],
        version=made["version"],
    )
    return page


def _write(target: Path, text: str) -> None:
    """Write a file under another name beside it, and rename it once it is complete."""
    partial: Path | None = None
    try:
        target = target.resolve()  # a link stays one
        # Not named as the target is: its name may be as long as names can be.
        descriptor, name = tempfile.mkstemp(prefix=".report-", suffix=".partial", dir=target.parent)
        partial = Path(name)
        # As the page's hashes are of: no line ends are translated; what has no UTF-8 becomes "?".
        with open(descriptor, "w", encoding="utf-8", errors="replace", newline="") as file:
            file.write(text)
        partial.chmod(0o666 & ~_umask())  # mkstemp keeps others out
        partial.replace(target)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def _umask() -> int:
    """Return which permissions new files lack here."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
