"""A process of its own that keeps rows: ``ledger_process.py FILE``, to be killed at any time.

For each line on stdin, ``USER-NUMBER``, it puts one row with that as its request's id, and repeats the line.
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
        user = request_id.partition("-")[0]
        ledger.put(row(user, at_s=time.time())._replace(request_id=request_id))
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
