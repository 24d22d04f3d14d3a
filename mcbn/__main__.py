"""`python -m mcbn`: the command line."""

from mcbn.cli.main import main

main()
