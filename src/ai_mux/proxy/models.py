"""Which model does a request ask for, and may its user ask for it?

Rule 1: no other model is reached than one that was looked at. What cannot be read, or
could be read in two ways, is refused. Tools that have a model of their own (Anthropic's
advisor, OpenAI's image generation) have to name an allowed one, too.

Rule 2: nothing is changed. What was unpacked to be looked into is thrown away.

Rule 3: looking costs others nothing that could be noticed. It is done in short steps, and how
much work a body may make is bounded by how much was sent.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

from ai_mux.errors import BadRequest, Forbidden, UnsupportedMediaType
from ai_mux.providers.base import PathRule
from ai_mux.proxy.routes import Admitted, Paths
from ai_mux.wire.codings import CodingError, decoder
from ai_mux.wire.http1 import RequestHead
from ai_mux.wire.json_keys import TopLevelStrings
from ai_mux.wire.json_members import JsonRefused

MODEL: Final = "model"
TOOLS: Final = ("tools", MODEL)
"""Where tools name models: a top-level array, and the key in its objects."""
# Looked into at once. The worst of it, nothing but brackets, takes a millisecond.
_SLICE: Final = 8 * 1024
# Unpacked at once: in this many bytes gzip holds 512 KiB at most; what other codings yield is bounded there.
_PACKED_SLICE: Final = 512
# A step, in bytes and in brackets and commas: one or two milliseconds. The first one is done as the
# bytes come, in the same turn of the loop as that of everybody else who sends.
_FIRST_BYTES: Final = 8 * 1024
_STEP_BYTES: Final = 64 * 1024
_STEP_MARKS: Final = 2000
# Brackets and commas are what costs. The packed conversations of clients have one for 2 to 20 bytes
# that are sent; a few packets must not stand for a second's work.
_FREE_MARKS: Final = 16 * 1024
_MARKS_PER_BYTE: Final = 2
# Where the model is, in any body that clients send; of a packed body as well.
_WITHIN: Final = 2**20
_SHOWN_CHARACTERS: Final = 100
_CHARSET: Final = re.compile(rb"charset[ \t]*=[ \t]*\"?([^ \t;\"]*)", re.IGNORECASE)
_UTF_8: Final = frozenset({b"utf-8", b"utf8", b"us-ascii"})
_JSON: Final = re.compile(rb"application/(?:[a-z0-9!#$&^_.-]+\+)?json[ \t]*(?:;[^,]*)?", re.IGNORECASE)

_NOT_JSON: Final = (
    "Your token is for certain models only, so a body must say that it is JSON: send the field "
    "Content-Type once, as application/json (curl needs -H 'Content-Type: application/json', because "
    "its -d says that a form comes)."
)
_NOT_UTF_8: Final = "Your token is for certain models only, so the body must be in UTF-8."


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


def check_place(admitted: Admitted, head: RequestHead) -> None:
    """Refuse a request whose model might stand where nobody looks.

    Of a provider's own paths it is known where: at the top of the body. Others have it in the path, the
    query, deep in the body or in what was stored before.

    Raises:
        Forbidden: It is for a path that only the configuration opens, or with a method that only it does.
    """
    path = head.path[1 + len(admitted.route.name) :]
    rule = _own_paths(admitted.destination.backend.paths).find(path)
    if rule is None or not (head.method in rule.methods or (head.upgrade and rule.upgrade)):
        method, shown = head.method.decode("latin-1"), path.decode("latin-1") or "/"
        raise Forbidden(
            f"Your token is for certain models only, and for {method} {shown} it is not known here where "
            f"a request names its model. Use the paths of {admitted.route.name} that are open by default."
        )


@lru_cache(maxsize=16)
def _own_paths(rules: tuple[PathRule, ...]) -> Paths:
    return Paths(rules)


class ModelScan:
    """Looks for the model in a request's body.

    Attributes:
        model: The model, once it is known.
    """

    __slots__ = (
        "_allowed",
        "_at",
        "_data",
        "_decoder",
        "_packed",
        "_packed_at",
        "_received",
        "_strings",
        "model",
    )

    def __init__(
        self,
        content_encoding: bytes,
        allowed: tuple[str, ...],
        *,
        content_types: Sequence[bytes] = (b"application/json",),
    ) -> None:
        """Begin to look.

        Args:
            content_encoding: The field's value; of repeated fields, joined by commas.
            allowed: Which models may be asked for: globs.
            content_types: The values of all fields of this name.

        Raises:
            UnsupportedMediaType: It is not JSON, or in a coding or charset that is not known here.
        """
        # Whoever takes a form, or guesses what a body without a type is, finds another model in it.
        if len(content_types) != 1 or not _JSON.fullmatch(content_types[0].strip(b" \t")):
            raise UnsupportedMediaType(_NOT_JSON, fields=(("Accept", "application/json"),))
        if any(charset.lower() not in _UTF_8 for charset in _CHARSET.findall(content_types[0])):
            raise UnsupportedMediaType(_NOT_UTF_8, fields=())
        self._allowed = allowed
        self._strings = TopLevelStrings(MODEL, array=TOOLS, within=_WITHIN)
        self._data = self._packed = b""
        self._at = self._packed_at = 0  # how far we are in them
        self._received = 0
        self.model = ""
        try:
            self._decoder = decoder(content_encoding, guarded=True)
        except CodingError as exc:
            raise _packed_badly(exc) from exc

    @property
    def is_known(self) -> bool:
        """The model is known, and may be asked for."""
        return bool(self.model)

    @property
    def is_behind(self) -> bool:
        """Not all that was fed has been looked into."""
        return self._at < len(self._data) or self._packed_at < len(self._packed)

    def feed(self, data: bytes) -> None:
        """Begin to look into the next bytes. Not while it is behind.

        Raises:
            Forbidden: The model may not be asked for.
            BadRequest: There is not one model, or not where it must be.
            UnsupportedMediaType: They cannot be unpacked.
        """
        self._received += len(data)
        if self._decoder is None:
            self._data, self._at = data, 0
        else:
            self._packed, self._packed_at = data, 0
        self._look(_FIRST_BYTES)

    def go_on(self) -> None:
        """Look into more of them, for some milliseconds.

        Raises:
            Forbidden: The model may not be asked for.
            BadRequest: There is not one model, or not where it must be.
            UnsupportedMediaType: They cannot be unpacked.
        """
        self._look(_STEP_BYTES)

    def _look(self, left: int) -> None:
        """Look into some more bytes."""
        last = self._strings.marks + _STEP_MARKS
        try:
            while left > 0 and self.is_behind and self._strings.marks < last:
                left -= self._unpack() if self._at >= len(self._data) else self._look_into()
        except CodingError as exc:
            raise _packed_badly(exc) from exc
        except JsonRefused as exc:
            raise unclear(exc) from exc
        self._check()

    def _unpack(self) -> int:
        """Unpack a slice. Return how much work that was, in bytes."""
        assert self._decoder is not None  # noqa: S101 - else nothing is packed
        packed = self._packed[self._packed_at : self._packed_at + _PACKED_SLICE]
        self._packed_at += len(packed)
        self._data, self._at = self._decoder.feed(packed), 0
        if self._received > _WITHIN and not self._strings.found:
            raise JsonRefused(f'there is no "{MODEL}" where one must be')
        return len(packed) + len(self._data) // 16

    def _look_into(self) -> int:
        """Look into a slice. Return its length."""
        piece = self._data[self._at : self._at + _SLICE]
        self._at += len(piece)
        self._strings.feed(piece)
        marks = _FREE_MARKS + _MARKS_PER_BYTE * self._received
        if self._decoder is not None and self._strings.marks > marks:
            raise JsonRefused("it has too many brackets and commas for a body that is packed so well")
        return len(piece)

    def finish(self) -> None:
        """Learn that the body has ended. Not while it is behind.

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
