"""The log. ``Log`` is the way in."""

from ai_mux.logs.lines import Outcome
from ai_mux.logs.log import LEVELS, Log, mask, masked_headers, wants_colour

__all__ = ["LEVELS", "Log", "Outcome", "mask", "masked_headers", "wants_colour"]
