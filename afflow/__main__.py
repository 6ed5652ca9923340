"""The command line: `python -m afflow describe FILE` describes a saved model."""

import argparse
import sys
from pathlib import Path

from afflow.saving.archive import describe


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status: 1, with a message, for a file of another kind."""
    parser = argparse.ArgumentParser(prog="afflow", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("describe", help="print the card and the outline of saved models")
    command.add_argument("file", type=Path, nargs="+", help="a file of afflow.save")
    try:
        for path in parser.parse_args(arguments).file:
            print(describe(path))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
