"""Reads an answer that is written as Anthropic's API writes nearly all of them, by two patterns.

Rule 1: what matches is read as ``documents`` would read it, in a third of the time. A test compares them.

Rule 2: what is unusual does not match, and nothing is concluded from that: another order, a member
more, a blank anywhere, an escape in a name, a figure that is none.

As in ``wire.json_ends``, the last bracket proves that the usage is the outermost object's, and
nothing but strings stands before the model.
"""

import re
from typing import Final

from ai_mux.usage.reading import name
from ai_mux.usage.tally import Reading, Tokens
from ai_mux.wire.memory import Memory, up_to

_FIGURE: Final = rb"([1-9][0-9]{0,8}+|0)"
_NAME_BYTES: Final = 128
_NAME: Final = rb'"([ !#-\[\]-~]{1,128}+)"'
# The model stands first today, and stood behind these three in all years before.
_BEGINNING: Final = re.compile(
    rb'\{(?:"id":"[^"]*+(?<!\\)","type":"message","role":"assistant",|)"model":"([^"]{1,128}+)"'
).match
# What the pattern of the end has to be looked for in: with the largest figures, and names as long as usual.
_END_BYTES: Final = 336
_END: Final = re.compile(
    rb',"usage":\{"input_tokens":' + _FIGURE +
    rb',"cache_creation_input_tokens":' + _FIGURE +
    rb',"cache_read_input_tokens":' + _FIGURE +
    rb',"cache_creation":\{"ephemeral_5m_input_tokens":' + _FIGURE +
    rb',"ephemeral_1h_input_tokens":' + _FIGURE +
    rb'\},"output_tokens":' + _FIGURE +
    rb',"service_tier":(?:"standard"|' + _NAME + rb")"
    rb'(?:,"inference_geo":"[ !#-\[\]-~]{1,128}+"|)'
    rb"\}\}\Z"
).findall  # fmt: skip
# A named tuple's own constructor is a function written in Python, and takes twice as long.
_NEW: Final = tuple.__new__


def read_usual(raw: bytes) -> Reading | None:
    """Return what one of Anthropic's answers says of its use; None where it is not written as usual.

    Args:
        raw: The answer, to its last byte.
    """
    beginning = _BEGINNING(raw)
    found = None if beginning is None else _END(raw, len(raw) - _END_BYTES)
    if beginning is None or not found:
        return None
    model = _MODELS[beginning[1]]
    if model is None:
        return None
    given, written, read, for_5m, for_1h, output, tier = found[0]
    short, long = int(for_5m), int(for_1h)
    rest = int(written) - long  # as in ``reading``: what the split does not tell of
    tokens = _NEW(Tokens, (int(given), int(read), short if short > rest else rest, long, int(output)))
    return _NEW(Reading, (tokens, "whole", model, tier.decode() if tier else "standard"))


def _model(written: bytes) -> str | None:
    return None if b"\\" in written else name(written.decode("latin-1"))


_MODELS: Final = Memory(_model, keeps=up_to(_NAME_BYTES), most=64)
"""The names of models as they are written between quotes; None for what is none, or has an escape."""
