"""`python -m sandbox`: hands the command line to `sandbox.app.main`. Changes only with the name of that function."""

import sys

from sandbox.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
