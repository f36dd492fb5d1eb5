"""What holds for all tests."""

import os
import signal
from collections.abc import Generator

import programs_needed
import pytest
from hypothesis import settings

# How long one example of a property takes says more about the machine than about the code.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")

# Under nohup a hangup is ignored, and in the background of a script an interrupt: by whatever the
# tests start as well, and they send some.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Some make directories for others to look into, which a machine with a strict umask would close.
os.umask(0o022)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    yield  # after pytest's own summary, so that these are the last lines
    for line in programs_needed.summary(config):
        terminalreporter.write_line(line, red=True, bold=True)
