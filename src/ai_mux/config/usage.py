"""The ``usage`` of a configuration: what is kept of who used what, and the operator's own prices."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from ai_mux.config import values
from ai_mux.config.model import PriceConfig, UsageConfig
from ai_mux.config.report import Fields, Report, Wrong
from ai_mux.config.tree import Kind, Node, Scalar, Table, describe
from ai_mux.limits import Limits, Quantity

KEYS: Final = ("enabled", "keep", "show_windows", "prices")
# The kinds of tokens, as ``usage.tally`` counts them.
PRICE_KEYS: Final = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")

_DAY_S: Final = 86_400
_DAYS: Final = re.compile(r"([0-9]{1,6})d")
_KEEP_FORM: Final = 'write it like "400d" or "36h"'

_PRICE: Final = re.compile(r"\$?((?:[0-9]{1,9}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})(?:[eE][-+]?[0-9]{1,2})?)")
_PRICE_FORM: Final = "write dollars for a million tokens, like 3 or 0.25"
# A millionth of a dollar for a million tokens: below it, a price is no whole number of
# millionths of a millionth of a dollar for a token.
_FINEST: Final = Decimal("0.000001")
_HIGHEST: Final = 10**6


def read_usage(node: Node, *, report: Report) -> UsageConfig:
    """Return what is kept; what is wrong goes to ``report``."""
    default = UsageConfig()
    fields = Fields(node, at="usage", known=KEYS, report=report)
    return UsageConfig(
        enabled=fields.get("enabled", values.flag, default.enabled),
        keep_s=fields.get("keep", _keep_s, default.keep_s),
        show_windows=fields.get("show_windows", values.flag, default.show_windows),
        prices=fields.get("prices", lambda value: _prices(value, fields.path("prices"), report), ()),
    )


def check_suffices(usage: UsageConfig, limits: Mapping[str, Limits], *, line: int, report: Report) -> None:
    """Report limits that nothing would count, or that a restart would forget.

    Args:
        usage: What is kept.
        limits: By where they stand, like ``users[0]``.
        line: Where ``usage`` stands.
        report: Where problems go.
    """
    for at, one in limits.items():
        if not usage.enabled and any(rule.quantity is not Quantity.REQUESTS for rule in one.rules):
            text = f"is off, and {at} has a limit of tokens or cost; turn it on, or remove such limits"
            report.error(line, "usage.enabled", text)
            return
    longest_s = max((rule.window_s for one in limits.values() for rule in one.rules), default=0)
    if usage.enabled and usage.keep_s < longest_s:
        text = "is shorter than the longest window of a limit, which forgets the rest at a restart; keep more"
        report.warn(line, "usage.keep", text)


def _keep_s(node: Node) -> float:
    if isinstance(node, Scalar) and node.kind is Kind.STRING and (days := _DAYS.fullmatch(node.text)):
        kept_s = float(int(days[1]) * _DAY_S)
    else:
        kept_s = values.duration_s(node, form=_KEEP_FORM)
    if kept_s < _DAY_S:
        raise Wrong(f"must be at least a day; {_KEEP_FORM}")
    if kept_s > values.LONGEST_S:
        raise Wrong("is longer than 292 years, the longest duration; write less")
    return kept_s


def _prices(node: Node, at: str, report: Report) -> tuple[PriceConfig, ...]:
    if not isinstance(node, Table):
        raise Wrong(f"must be a mapping of models to prices, not {describe(node)}")
    lines: dict[str, int] = {}
    prices = []
    for index, entry in enumerate(node.entries):
        # By position: what stands there may be anything, and is not repeated.
        where = f"{at}[{index}]"
        if not values.is_glob(entry.key):
            report.error(entry.line, where, f"its key is no name of a model; {values.GLOB_FORM}")
            continue
        if (first := lines.get(entry.key.lower())) is not None:
            report.error(entry.line, where, f"is the same model as in line {first}; remove one of them")
            continue
        lines[entry.key.lower()] = entry.line
        fields = Fields(entry.value, at=where, known=PRICE_KEYS, report=report)
        if isinstance(entry.value, Table) and not entry.value.entries:
            text = f"has no price; give at least one of {', '.join(PRICE_KEYS)}"
            report.error(entry.line, where, text)
        read = {key: fields.get(key, _price, None) for key in PRICE_KEYS}
        per_million = {key: price for key, price in read.items() if price is not None}
        prices.append(PriceConfig(model=entry.key, per_million=per_million))
    return tuple(prices)


def _price(node: Node) -> Decimal:
    """Return dollars, exactly as they are written: a float would not hold 0.1."""
    is_number = isinstance(node, Scalar) and node.kind in {Kind.INTEGER, Kind.FLOAT}
    written = node.text if is_number and isinstance(node, Scalar) else values.text(node)
    if written.startswith("-"):
        raise Wrong(f"must not be negative; {_PRICE_FORM}")
    if not (parts := _PRICE.fullmatch(written.removeprefix("+"))):
        raise Wrong(f"is not a price; {_PRICE_FORM}")
    price = Decimal(parts[1])
    if price >= _HIGHEST:
        raise Wrong(f"is a million dollars or more; {_PRICE_FORM}")
    if price % _FINEST:
        raise Wrong(f"has more than six digits behind the point; {_PRICE_FORM}")
    return price
