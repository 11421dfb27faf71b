"""`python -m stella_mteb` is `stella-mteb`."""

from stella_mteb.cli import main

main()
