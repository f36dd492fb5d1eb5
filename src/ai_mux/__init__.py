"""ai-mux: reach AI subscriptions with ordinary tokens."""

from importlib.metadata import version

__version__ = version("ai-mux")
