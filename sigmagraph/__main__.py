"""`python -m sigmagraph`: the same as the command."""

import os
import sys

# pathlib imports others, and until this is done they may be files of the current folder
PARENT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
if not sys.flags.safe_path and sys.path[0] == os.getcwd() != PARENT:  # noqa: PTH109
    del sys.path[0]

from sigmagraph.engine.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
