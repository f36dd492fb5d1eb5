"""What holds for all tests."""

import signal

from hypothesis import settings

# How long one example of a property takes says more about the machine than about the code.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")

# Under nohup a hangup is ignored, by whatever the tests start as well; and they send some.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
