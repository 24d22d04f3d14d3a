"""`python -m mcbn`: the command line."""

from mcbn.cli.main import main

if __name__ == "__main__":
    main()
