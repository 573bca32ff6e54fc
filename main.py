"""SATUSEHAT DICOM Router: `python main.py -v` runs it, `python main.py --help` lists what else it can do."""

import sys

from interface.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
