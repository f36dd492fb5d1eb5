"""Outbound proxies: what one is, which one a target gets, and how a connection goes through it.

A proxy that is named is used, or its failure is told. Nothing goes around it.

    proxy       the value, and its URL
    choice      configuration and environment in, a proxy or None out
    connect     one function from target and proxy to a transport
    http, socks the handshakes

Here stands what may be imported without loading an event loop.
"""

from ai_mux.outbound.choice import chosen_proxy
from ai_mux.outbound.proxy import InvalidProxy, OutboundProxy, ProxyFailed, parse_proxy

__all__ = ["InvalidProxy", "OutboundProxy", "ProxyFailed", "chosen_proxy", "parse_proxy"]
