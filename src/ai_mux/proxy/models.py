"""Which model does a request ask for, and may its user ask for it?

Rule 1: no other model is reached than one that was looked at. What cannot be read, or
could be read in two ways, is refused. Tools that have a model of their own (Anthropic's
advisor, OpenAI's image generation) have to name an allowed one, too.

Rule 2: nothing is changed. What was unpacked to be looked into is thrown away.
"""

import re
from fnmatch import fnmatchcase
from typing import Final

from ai_mux.errors import BadRequest, Forbidden, UnsupportedMediaType
from ai_mux.wire.codings import CodingError, Decoder, decoder
from ai_mux.wire.json_keys import TopLevelStrings
from ai_mux.wire.json_members import JsonRefused

MODEL: Final = "model"
TOOLS: Final = ("tools", MODEL)
"""Where tools name models: a top-level array, and the key in its objects."""
# Unpacked, a body may be as long as others may be by default (``max_body_size``).
_UNPACKED_BYTES: Final = 64 * 1024 * 1024
# Looking into what was unpacked costs far more than unpacking it, so a few packets must not stand
# for all of that. Conversations are packed 4 to 20 times; those of 4 MiB may be as they like.
_RATIO: Final = 64
_UNPACKED_FREELY_BYTES: Final = 4 * 1024 * 1024
# Where the model is, in any body that clients send; of a packed body as well.
_WITHIN: Final = 2**20
_SHOWN_CHARACTERS: Final = 100
_CHARSET: Final = re.compile(rb"charset[ \t]*=[ \t]*\"?([^ \t;\"]*)", re.IGNORECASE)
_UTF_8: Final = frozenset({b"utf-8", b"utf8", b"us-ascii"})


def check_model(model: str, allowed: tuple[str, ...]) -> None:
    """Refuse a model that none of these globs matches, without regard to case.

    Raises:
        Forbidden: None does.
    """
    name = model.casefold()
    if not any(fnmatchcase(name, glob.casefold()) for glob in allowed):
        shown = "".join(one if one.isprintable() else "?" for one in model[:_SHOWN_CHARACTERS])
        raise Forbidden(
            f'Your token is not for the model "{shown}". Ask the operator which models it is for.'
        )


def check_tools(models: list[str], allowed: tuple[str, ...]) -> None:
    """Refuse the models of tools as any other, and forget those that pass.

    Raises:
        Forbidden: One is not allowed.
    """
    for model in models:
        check_model(model, allowed)
    models.clear()


def unclear(error: JsonRefused) -> BadRequest:
    """Return what a user is told whose request does not show which model it asks for."""
    return BadRequest(
        f"Your token is for certain models only, and this request does not clearly show one: {error.reason}."
    )


class ModelScan:
    """Looks for the model in a request's body.

    Attributes:
        model: The model, once it is known.
    """

    __slots__ = ("_allowed", "_decoder", "_packed", "_strings", "_unpacked", "model")

    def __init__(
        self, content_encoding: bytes, allowed: tuple[str, ...], *, content_type: bytes = b""
    ) -> None:
        """Begin to look.

        Args:
            content_encoding: The field's value; of repeated fields, joined by commas.
            allowed: Which models may be asked for: globs.
            content_type: The field's value, for its charset.

        Raises:
            UnsupportedMediaType: It is in a coding or charset that is not known here.
        """
        if any(charset.lower() not in _UTF_8 for charset in _CHARSET.findall(content_type)):
            raise UnsupportedMediaType("Your token is for certain models only, so the body must be in UTF-8.")
        self._allowed = allowed
        self._strings = TopLevelStrings(MODEL, array=TOOLS, within=_WITHIN)
        self._packed = self._unpacked = 0
        self.model = ""
        try:
            self._decoder = decoder(content_encoding, limit=_UNPACKED_BYTES)
        except CodingError as exc:
            raise _packed_badly(exc) from exc

    @property
    def is_known(self) -> bool:
        """The model is known, and may be asked for."""
        return bool(self.model)

    def feed(self, data: bytes) -> None:
        """Look into the next bytes.

        Raises:
            Forbidden: The model may not be asked for.
            BadRequest: There is not one model, or not where it must be.
            UnsupportedMediaType: They cannot be unpacked.
        """
        try:
            self._look_into(data if self._decoder is None else self._unpack(data, self._decoder))
        except CodingError as exc:
            raise _packed_badly(exc) from exc
        except JsonRefused as exc:
            raise unclear(exc) from exc
        self._check()

    def _unpack(self, data: bytes, decoder: Decoder) -> bytes:
        self._packed += len(data)
        data = decoder.feed(data)
        self._unpacked += len(data)
        if self._unpacked > _UNPACKED_FREELY_BYTES + _RATIO * self._packed:
            raise CodingError("the body unpacks to too much")
        return data

    def _look_into(self, data: bytes) -> None:
        self._strings.feed(data)
        if self._packed > _WITHIN and not self._strings.found:
            raise JsonRefused(f'there is no "{MODEL}" where one must be')

    def finish(self) -> None:
        """Learn that the body has ended.

        Raises:
            Forbidden: The model may not be asked for.
            BadRequest: It was not one whole JSON object with one model.
            UnsupportedMediaType: Its coding has not ended.
        """
        try:
            if self._decoder is not None:
                self._decoder.finish()
            self._strings.finish()
        except CodingError as exc:
            raise _packed_badly(exc) from exc
        except JsonRefused as exc:
            raise unclear(exc) from exc
        self._check()

    def _check(self) -> None:
        check_tools(self._strings.listed, self._allowed)
        if not self.model and MODEL in self._strings.found:
            model = self._strings.found[MODEL]
            check_model(model, self._allowed)
            self.model = model


def _packed_badly(error: CodingError) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"Your token is for certain models only, and this request cannot be looked into: {error}."
    )
