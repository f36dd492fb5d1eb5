"""A process of its own that needs a token: ``renewing_process.py FILE TOKEN_URL [CALL NUMBER]``.

Prints the access token. With CALL it dies before the store's NUMBER-th use of that system call.
"""

import asyncio
import os
import sys
from pathlib import Path

from fakes.records import Records

from ai_mux.clock import SystemClock
from ai_mux.credentials.endpoint import TokenEndpoint
from ai_mux.credentials.refresh import Renewer
from ai_mux.providers.claude import PROVIDER
from ai_mux.storage import files


def die_before(call: str, at: int) -> None:
    """End this process, as SIGKILL would, before the store's n-th use of a system call."""
    real = getattr(os, call)
    counted = 0

    def counting(*args: object, **kwargs: object) -> object:
        nonlocal counted
        counted += 1
        if counted == at:
            os._exit(9)
        return real(*args, **kwargs)

    setattr(os, call, counting)


async def main(path: str, url: str) -> None:
    renewer = Renewer(
        name="claude",
        store=files.FileStore(Path(path), Records()),
        issuer=PROVIDER.issuer,
        endpoint=TokenEndpoint(url),
        clock=SystemClock(),
        log=Records(),
        check_interval_s=600,
    )
    credential = await renewer.renewed()
    await renewer.finish()
    print(credential.access.reveal())


if __name__ == "__main__":
    if len(sys.argv) > 3:
        die_before(sys.argv[3], int(sys.argv[4]))
    asyncio.run(main(sys.argv[1], sys.argv[2]))
