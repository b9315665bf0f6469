"""`python -m twin.bridge verify LEDGER [--head HASH]`: is the audit chain whole and unchanged?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from twin.bridge import ledger
from twin.errors import LedgerError


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the chain verifies, else 1 with the line that does not."""
    parser = argparse.ArgumentParser(prog="python -m twin.bridge", description=__doc__)
    verify = parser.add_subparsers(dest="verb", required=True).add_parser("verify", help="check an audit chain")
    verify.add_argument("ledger", type=Path)
    verify.add_argument("--head", help="hash of the last record, kept elsewhere: shows that the end was cut off")
    given = parser.parse_args(arguments)
    try:
        count = ledger.verify(given.ledger, head=given.head)
    except LedgerError as error:
        sys.stderr.write(f"LedgerError: {error}\n")
        return 1
    sys.stdout.write(f"{given.ledger}: {count} records, the chain is whole\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
