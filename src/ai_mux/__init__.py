"""ai-mux: reach AI subscriptions with ordinary tokens."""


def __getattr__(name: str) -> str:
    """Return ``__version__``, once somebody asks: finding it out takes longer than Python's own start.

    Source: PEP 562.
    """
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415 - see above

    found = globals()[name] = version("ai-mux")
    return found
