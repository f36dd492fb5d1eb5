"""``ai-mux``, which ``python -m ai_mux`` is as well: what must be settled before all else is imported.

Importing takes most of a start, so nothing is imported up here that Python has not imported for itself.
"""

import os
import signal


def main() -> None:
    """Run the command line and end the process with its exit code."""
    # pid_namespaces(7): a signal for which the first process of a container has no handler is passed
    # over, SIGTERM too. Who stops a container that is just starting would wait for it in vain, till it
    # is killed. The server's own handler takes this one's place, with none of them missing in between.
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end_as_any_other)
    from ai_mux.cli import main as run  # noqa: PLC0415 - see above

    run()


def _end_as_any_other(number: int, _frame: object) -> None:
    """End as SIGTERM ends every other process: at once, and by no exception, which somebody could catch."""
    os._exit(128 + number)


if __name__ == "__main__":
    main()
