"""python -m sdegen: the command line."""

import sys

try:
    from sdegen.app.cli import main

    status: int = main()
except KeyboardInterrupt:  # while the command line itself was being imported
    status = 130
sys.exit(status)
