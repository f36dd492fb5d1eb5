"""What holds for all tests."""

from hypothesis import settings

# How long one example of a property takes says more about the machine than about the code.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")
