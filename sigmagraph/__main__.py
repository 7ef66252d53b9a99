"""`python -m sigmagraph`: the same as the command."""

from sigmagraph.engine.cli.app import main

if __name__ == "__main__":
    main()
