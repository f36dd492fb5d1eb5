"""What holds for all tests."""

import signal
from collections.abc import Generator

import programs_needed
import pytest
from hypothesis import settings

# How long one example of a property takes says more about the machine than about the code.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")

# Under nohup a hangup is ignored, by whatever the tests start as well; and they send some.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    yield  # after pytest's own summary, so that these are the last lines
    for line in programs_needed.summary(config):
        terminalreporter.write_line(line, red=True, bold=True)
