"""A process of its own that keeps rows: ``ledger_process.py FILE``, to be killed at any time.

For each line on stdin it puts one row whose request id is that line, and repeats the line on stdout.
"""

import sys
import time
from pathlib import Path

from fakes.records import Records
from fakes.rows import row

from ai_mux.clock import SystemClock
from ai_mux.storage.sqlite import SqliteStore
from ai_mux.usage.ledger import Ledger


def main(path: Path) -> None:
    ledger = Ledger(lambda: SqliteStore(path), log=Records(), clock=SystemClock(), keep_s=1e12)
    ledger.start()
    for line in sys.stdin:
        request_id = line.strip()
        ledger.put(row(f"user{len(request_id)}", at_s=time.time())._replace(request_id=request_id))
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
