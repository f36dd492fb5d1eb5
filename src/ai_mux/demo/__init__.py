"""The demo: a gateway before a simulated provider, to see it work in ten seconds.

``SimulatedProvider`` is also the upstream of tests that want a polite one.
"""

from ai_mux.demo.flow import run_demo
from ai_mux.demo.provider import SimulatedProvider

__all__ = ["SimulatedProvider", "run_demo"]
