"""When the configuration is read again, and what of it a running server can take over.

Rule 1: whole or not at all. Everything that can be wrong is found before anything changes.

Rule 2: one reload at a time. Who asks meanwhile gets one more after it: what was read
may be older than what was meant.
"""

import asyncio
import stat
from collections.abc import Callable, Collection, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ai_mux.config import AdminConfig, Config, Listen, load
from ai_mux.errors import ConfigError
from ai_mux.logs import Log

# What a running server keeps: its sockets are bound, and its credentials and its ledger lie there.
_FIXED: Final = ("listen", "state_dir")
# Half a file, which lacks its users, must not let everyone in.
_OPENS_TO_ALL: Final = (
    "users: none are left, so everyone could use the credentials; add users, or restart if that is meant"
)

# Ten times what 10,000 users in YAML take on a slow machine.
_LONGEST_S: Final = 60

Work = Coroutine[Any, Any, None]


class Reloads:
    """Gathers what is asked for while a reload runs.

    Args:
        once: Takes over what the configuration says now. Raises ConfigError where it cannot
            be used, and then has changed nothing.
        spawn: Runs it in the background.
        log: Told of each problem.
    """

    def __init__(
        self, once: Callable[[], Work], *, spawn: Callable[[Work], asyncio.Task[None]], log: Log
    ) -> None:
        self._once = once
        self._spawn = spawn
        self._log = log
        self._running: asyncio.Task[None] | None = None
        self._again = False

    @property
    def is_running(self) -> bool:
        """One has been asked for and has not ended."""
        return self._running is not None and not self._running.done()

    def ask(self) -> None:
        """Reload, or once more if one runs already."""
        if self.is_running:
            self._again = True
        else:
            self._running = self._spawn(self._run())

    async def _run(self) -> None:
        again = True
        while again:
            self._again = False
            try:
                async with asyncio.timeout(_LONGEST_S):
                    await self._once()
            except TimeoutError:
                problem = f"it took longer than {_LONGEST_S} s; does a file system hang? Nothing has changed"
                self._log.error("config.not_reloaded", problem=problem)
            except ConfigError as exc:
                for line in exc.lines:
                    self._log.error("config.not_reloaded", problem=line)
            except Exception as exc:  # a bug here costs one reload, and not the one that waits behind it
                problem = f"a bug of ai-mux: {type(exc).__name__}; nothing has changed"
                self._log.error("config.not_reloaded", problem=problem)
            again = self._again


def read_again(before: Config, known_providers: Collection[str]) -> Config:
    """Read the configuration's file once more. Blocks; to be called in a thread.

    Raises:
        ConfigError: It cannot be used by a server that runs.
    """
    _check_source(before.source)
    config = load(before.source, known_providers=known_providers)
    if before.users and not config.users:
        raise ConfigError(f"{config.source}: {_OPENS_TO_ALL}")
    if config.usage.enabled and not before.usage.enabled:
        # Taken over in part, it would let limits of tokens and cost in that nothing counts for.
        raise ConfigError(f"{config.source}: usage.enabled: was off at the start; restart to switch it on")
    return config


def taken_over(before: Config, config: Config) -> tuple[Config, list[str]]:
    """Return what a running server goes by from now on, and the changed keys that need a restart.

    The listener and ``state_dir`` stay; what they decide is read from the first configuration.
    """
    fixed = [key for key in _FIXED if getattr(config, key) != getattr(before, key)]
    kept = replace(config, **{key: getattr(before, key) for key in _FIXED})
    if before.usage.enabled and not config.usage.enabled:
        fixed.append("usage.enabled")
        kept = replace(kept, usage=replace(config.usage, enabled=True))
    if _address(before.admin) != _address(config.admin):
        fixed.append("admin" if before.admin is None or config.admin is None else "admin.listen")
        kept = replace(kept, admin=before.admin)
    return kept, fixed


def _address(admin: AdminConfig | None) -> Listen | None:
    return None if admin is None else admin.listen


def _check_source(path: Path | None) -> None:
    """Refuse what cannot be a configuration's second reading, though it might do for a first.

    Raises:
        ConfigError: A pipe, which is read only once, and opening it would wait for ever; or an
            empty file, which somebody is just writing.
    """
    try:
        there = None if path is None else path.stat()
    except OSError:
        return  # ``load`` says it better
    if there is None or stat.S_ISDIR(there.st_mode):
        return
    if not stat.S_ISREG(there.st_mode):
        raise ConfigError(f"{path}: is not a regular file, and is not read a second time; restart instead")
    if not there.st_size:
        raise ConfigError(f"{path}: is empty; write the configuration into it, or restart without --config")
