"""``python -m floodwall``: the same command line, found by the interpreter that runs it."""

from floodwall.cli import main

main()
