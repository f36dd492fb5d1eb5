"""What the providers ask for their tokens: reads ``prices.toml``, which says what its words mean.

Rule 1: every price names its sources. Rule 2: a kind of token, a tier or a length that
has no published rate has none here either; a guess would look like a fact. Rule 3:
figures are decimal, as they are published, and stay exact.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, NamedTuple

STANDARD: Final = "standard"
# Beside this module, which a wheel keeps on disk. importlib.resources would find it as
# well, and takes longer to import than the file to read.
_FILE: Final = Path(__file__).with_name("prices.toml")


class Rates(NamedTuple):
    """US dollars for a million tokens, by the kinds of ``tally.Tokens``; None where there is no rate."""

    input: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write_5m: Decimal | None = None
    cache_write_1h: Decimal | None = None
    output: Decimal | None = None

    def times(self, prompt: Decimal, output: Decimal) -> "Rates":
        """Return these with those of the prompt and that of the answer multiplied."""
        return Rates(
            input=_times(self.input, prompt),
            cache_read=_times(self.cache_read, prompt),
            cache_write_5m=_times(self.cache_write_5m, prompt),
            cache_write_1h=_times(self.cache_write_1h, prompt),
            output=_times(self.output, output),
        )


def _times(rate: Decimal | None, factor: Decimal) -> Decimal | None:
    return None if rate is None else rate * factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a figure was found.

    Attributes:
        name: What the table calls it.
        url: The page.
        read: Of what day the copy is; where it has no date, when it was looked up.
        third_party: Who says so, where it is not the provider; else None.
        remark: What else is to be known of it.
    """

    name: str
    url: str
    read: date
    third_party: str | None
    remark: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one model costs for a while.

    Attributes:
        first_day: The first day on which it holds, UTC; None for ever before.
        end_day: The first day on which it does not hold any more; None for no end.
        short: By tier, the rates of requests whose prompt is no longer than ``long_above``.
        long: By tier, the rates of the others.
        long_above: In tokens, those read from a cache and written to one included; None where
            the length of a prompt makes no difference.
        sources: At least one.
        note: What else is to be known of it.
    """

    first_day: date | None
    end_day: date | None
    short: Mapping[str, Rates]
    long: Mapping[str, Rates]
    long_above: int | None
    sources: tuple[Source, ...]
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model.

    Attributes:
        provider: As ai-mux names it.
        name: As the provider names it.
        names: Its further names; a ``#`` stands for one digit of a date.
        prices: By time, the earliest first; empty where no price has a source.
    """

    provider: str
    name: str
    names: tuple[str, ...]
    prices: tuple[Price, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """All that is known.

    Attributes:
        tiers: By provider, what a response calls a tier to what prices call it.
        sources: By their names.
        models: As the file orders them.
        named: They, by provider and each of their names.
    """

    tiers: Mapping[str, Mapping[str, str]]
    sources: Mapping[str, Source]
    models: tuple[Model, ...]
    named: Mapping[tuple[str, str], Model]


@cache
def table() -> PriceTable:
    """Return what ai-mux ships. The first call reads and parses the file, in about 10 ms."""
    return read(_FILE.read_text(encoding="utf-8"))


def read(text: str) -> PriceTable:
    """Return the table that this TOML holds.

    The file is a part of the program: what is wrong with it is a ``ValueError`` (of which TOML's own
    errors are one), ``KeyError`` or ``TypeError``, for the test that reads it.
    """
    document = tomllib.loads(text, parse_float=Decimal)
    sources = {name: _source(name, **fields) for name, fields in document["sources"].items()}
    models = tuple(_model(sources=sources, **fields) for fields in document["models"])
    named: dict[tuple[str, str], Model] = {}
    for model in models:
        for name in (model.name, *model.names):
            if named.setdefault((model.provider, name), model) is not model:
                raise ValueError(f"{name} stands for two models")
    return PriceTable(tiers=document["tiers"], sources=sources, models=models, named=named)


def _source(
    name: str, *, url: str, read: date, third_party: str | None = None, remark: str | None = None
) -> Source:
    return Source(name=name, url=url, read=read, third_party=third_party, remark=remark)


def _model(
    *,
    sources: Mapping[str, Source],
    provider: str,
    name: str,
    names: list[str] | None = None,
    prices: list[dict[str, Any]] | None = None,
) -> Model:
    fields = prices or []
    # A price that does not say how long it holds ends where the next one begins.
    begins = [one["from"] for one in fields[1:]]
    ends = [one.get("until", next_day) for one, next_day in zip_longest(fields, begins)]
    return Model(
        provider=provider,
        name=name,
        names=tuple(names or ()),
        prices=tuple(_price(one, end, sources) for one, end in zip(fields, ends, strict=True)),
    )


def _price(fields: dict[str, Any], end_day: date | None, sources: Mapping[str, Source]) -> Price:
    unknown = fields.keys() - {"from", "until", "sources", "note", "rates", "long", "tiers"}
    if unknown:
        raise ValueError(f"unknown in a price: {', '.join(sorted(unknown))}")
    standard = _rates(fields["rates"])
    above, factors = _length(**fields["long"]) if "long" in fields else (None, None)
    short = {STANDARD: standard}
    long = {} if factors is None else {STANDARD: standard.times(*factors)}
    for tier, given in fields.get("tiers", {}).items():
        if isinstance(given, dict):
            own = dict(given)
            own_long = own.pop("long", None)
            short[tier] = _rates(own)
            if own_long is not None:
                long[tier] = _rates(own_long)
        else:
            factor = Decimal(given)
            short[tier] = standard.times(factor, factor)
            if factors is not None:
                long[tier] = short[tier].times(*factors)
    return Price(
        first_day=fields.get("from"),
        end_day=end_day,
        short=short,
        long=long,
        long_above=above,
        sources=tuple(sources[name] for name in fields["sources"]),
        note=fields.get("note"),
    )


def _length(
    *, above: int, prompt: Decimal | int | None = None, output: Decimal | int | None = None
) -> tuple[int, tuple[Decimal, Decimal] | None]:
    if prompt is None or output is None:
        return above, None
    return above, (Decimal(prompt), Decimal(output))


def _rates(fields: Mapping[str, Any]) -> Rates:
    # TOML's whole numbers are ints, and its fractions Decimals.
    return Rates(**{kind: Decimal(rate) for kind, rate in fields.items()})


def beginning_s(day: date) -> float:
    """Return when a day begins in UTC, in seconds since 1970."""
    return datetime.combine(day, time(), UTC).timestamp()
