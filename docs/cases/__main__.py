"""Run all cases and put what they print into README.md: ``python docs/cases``."""

import io
import re
import runpy
from contextlib import redirect_stdout
from pathlib import Path

HERE = Path(__file__).parent
README = HERE / "README.md"
ANSWER = re.compile(r"(\[(\w+)\.py\]\(\2\.py\) prints:\n\n```text\n)(.*?)(?=^```$)", re.M | re.S)


def printed(name: str) -> str:
    """Run a case and return what it prints, without spaces at the ends of lines."""
    out = io.StringIO()
    with redirect_stdout(out):
        runpy.run_path(str(HERE / f"{name}.py"))["main"]()
    return re.sub(r" +$", "", out.getvalue(), flags=re.M)


def main() -> None:
    """Write the answers into the README."""
    text = README.read_text()
    README.write_text(ANSWER.sub(lambda found: found[1] + printed(found[2]), text))


if __name__ == "__main__":
    main()
