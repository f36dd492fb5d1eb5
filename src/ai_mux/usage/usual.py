"""Reads an answer that is written as Anthropic's API writes nearly all of them, by two patterns.

Rule 1: what matches is read as ``documents`` would read it, in a third of the time. A test compares them.

Rule 2: what is unusual does not match, and nothing is concluded from that: another order, a member
more, a blank anywhere, an escape in a name, a figure that is none.

As in ``wire.json_ends``, the last bracket proves that the usage is the outermost object's, and
nothing but strings stands before the model.
"""

import re
from typing import Final

from ai_mux.usage.tally import Reading, Tokens

_FIGURE: Final = rb"(0|[1-9][0-9]{0,8}+)"
_NAME: Final = rb'"([ !#-\[\]-~]{1,128}+)"'
# The model stands first today, and stood behind these three in all years before.
_BEGINNING: Final = re.compile(
    rb'\{(?:"id":"[!#-\[\]-~]{1,128}+","type":"message","role":"assistant",|)"model":' + _NAME
).match
_USAGE: Final = b',"usage":{"input_tokens":'
_END: Final = re.compile(
    re.escape(_USAGE) + _FIGURE +
    rb',"cache_creation_input_tokens":' + _FIGURE +
    rb',"cache_read_input_tokens":' + _FIGURE +
    rb',"cache_creation":\{"ephemeral_5m_input_tokens":' + _FIGURE +
    rb',"ephemeral_1h_input_tokens":' + _FIGURE +
    rb'\},"output_tokens":' + _FIGURE +
    rb',"service_tier":(?:"standard"|' + _NAME + rb")"
    rb'(?:,"inference_geo":"[ !#-\[\]-~]{1,128}+"|)'
    rb"\}\}\Z"
).match  # fmt: skip
# A named tuple's own constructor is a function written in Python, and takes twice as long.
_NEW: Final = tuple.__new__


def read_usual(raw: bytes) -> Reading | None:
    """Return what one of Anthropic's answers says of its use; None where it is not written as usual.

    Args:
        raw: The answer, to its last byte.
    """
    at = raw.rfind(_USAGE)
    end = _END(raw, at) if at > 0 else None
    beginning = None if end is None else _BEGINNING(raw)
    if end is None or beginning is None:
        return None
    given, written, read, for_5m, for_1h, output, tier = end.groups()
    short, long = int(for_5m), int(for_1h)
    rest = int(written) - long  # as in ``reading``: what the split does not tell of
    tokens = _NEW(Tokens, (int(given), int(read), short if short > rest else rest, long, int(output)))
    tier = "standard" if tier is None else tier.decode()
    return _NEW(Reading, (tokens, "whole", beginning[1].decode(), tier))
