"""How aiohttp goes through a proxy: by the same handshake as all other traffic.

aiohttp's own knows no SOCKS, and would verify and fail in ways of its own. Here a
connection is made when TLS with the token endpoint stands, and not before: until
then nothing of a request has been sent.
"""

import ssl
from typing import TYPE_CHECKING

from aiohttp import BaseConnector, ClientTimeout

from ai_mux.outbound import OutboundProxy
from ai_mux.outbound.connect import Target, Transports, connect

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.tracing import Trace


class ProxyConnector(BaseConnector):
    """Makes connections that end with their request.

    Args:
        via: The proxy that every one goes through.
        tls: For https targets.
    """

    def __init__(self, via: OutboundProxy, *, tls: ssl.SSLContext) -> None:
        super().__init__(force_close=True)
        self._via = via
        self._tls = tls

    async def _create_connection(
        self, req: "ClientRequest", traces: "list[Trace]", limits: ClientTimeout
    ) -> "ResponseHandler":
        """Connect, as each of aiohttp's connectors does in its own way.

        Raises:
            OSError: The proxy did not lead to the endpoint, or that is not trusted.
            TimeoutError: Not within ``limits.sock_connect``.
        """
        url = req.url
        protocol = self._factory()
        await connect(
            Target(
                host=url.raw_host or "", port=url.port or 0, tls=self._tls if url.scheme == "https" else None
            ),
            protocol,
            via=self._via,
            transports=Transports.of_loop(),
            timeout_s=limits.sock_connect or 0,
        )
        return protocol
