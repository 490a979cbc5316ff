"""``python -m fastdiv.cli``."""

from fastdiv.cli import main

main()
