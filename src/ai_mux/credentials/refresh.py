"""Keeps one credential fresh. A credential is never lost.

Rule 1: at most one renewal is in flight, in this process and across processes.
Two would spend the same refresh token, and a provider that allows that once may
then end the login (RFC 9700, section 4.14.2).

Rule 2: after taking the lock, look again. Whoever held it may have done our work.

Rule 3: prove that saving works before the refresh token is spent; save before use.
What could not be saved all the same is used from memory, and the lock is kept
until it is saved.

Rule 4: nobody who waits owns the renewal. It is a task of its own; a client that
leaves cancels nothing.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Protocol

from ai_mux.clock import Clock
from ai_mux.credentials.credential import Credential
from ai_mux.credentials.endpoint import Answered, NotSent, Unknown, retry_after_s
from ai_mux.credentials.known import Known
from ai_mux.credentials.notices import to_waiting_user
from ai_mux.credentials.oauth import Issuer, Reason, error_code
from ai_mux.credentials.saving import Unsaved, over
from ai_mux.credentials.standing import FRESH_S, Held, Outlook, Standing, hold
from ai_mux.credentials.store import CredentialStore, Log
from ai_mux.errors import BrokenCredential, StoreError, Unavailable
from ai_mux.secret import Secret

# Longer than the token endpoint may take, shorter than the patience of every client seen.
REQUEST_WAIT_S: Final = 40
FINISH_WAIT_S: Final = 60
# A mended file must be in use within 2 s.
_WATCH_S: Final = 1
_LONGEST_SAVE_PAUSE_S: Final = 60
# How many different refresh tokens one renewal looks at, when each is replaced under its hands.
_ROUNDS: Final = 3


class Endpoint(Protocol):
    """Where refresh tokens are exchanged."""

    async def post(self, body: Mapping[str, str]) -> NotSent | Unknown | Answered:
        """Send one request; never raise for what the network or the other side does."""


class Renewer:
    """One credential: in memory, in its store, and renewed in time.

    The caller runs ``run`` in a task, cancels it at the end, and then awaits
    ``finish``: a token that was just received could be lost otherwise.

    Args:
        name: The provider, for messages.
        store: Where the credential is kept.
        issuer: How it reads and what the token endpoint is told.
        endpoint: The token endpoint.
        clock: Both clocks.
        log: Told of every change of state, once.
        check_interval_s: How often the background looks whether a renewal is due.
        request_wait_s: How long a request waits for a renewal at most.
        api_key: What the store is taken to hold while nothing was read from it.

    Attributes:
        renewals: How many brought an access token, since the start.
        renewal_failures: How many attempts brought none.
    """

    def __init__(
        self,
        *,
        name: str,
        store: CredentialStore,
        issuer: Issuer,
        endpoint: Endpoint,
        clock: Clock,
        log: Log,
        check_interval_s: float,
        request_wait_s: float = REQUEST_WAIT_S,
        api_key: bool = False,
    ) -> None:
        self.renewals = 0
        self.renewal_failures = 0
        self._name = name
        self._store = store
        self._issuer = issuer
        self._endpoint = endpoint
        self._clock = clock
        self._interval_s = check_interval_s
        self._wait_s = request_wait_s
        self._known = Known(
            name=name,
            place=store.place,
            issuer=issuer,
            clock=clock,
            log=log,
            check_interval_s=check_interval_s,
            api_key=api_key,
        )
        self._renewal: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._save_failures = 0
        self._save_at = -math.inf  # by the monotonic clock
        self._under_lock = asyncio.Lock()  # one renewal or save at a time, in this process
        self._on_file = asyncio.Lock()  # so that what was read is taken over before a save changes it
        self._locked = False  # across processes
        self._waits_for_lock = False
        self._finishing = False
        self._check_at = -math.inf  # by the monotonic clock

    def go_by(self, endpoint: Endpoint, *, check_interval_s: float) -> None:
        """Use other settings from the next renewal on."""
        self._endpoint = endpoint
        self._interval_s = self._known.interval_s = check_interval_s
        self._check_at = -math.inf  # the old interval may have been a day

    # Asking, on the way of a request

    @property
    def is_api_key(self) -> bool:
        """What is held is an API key, and no login."""
        return self._known.is_api_key

    def fresh(self) -> Credential | None:
        """Return a credential that can be used now, or None if ``renewed`` must be awaited.

        A plain call without I/O. Raises Unavailable where waiting would not help.
        """
        return self._known.fresh()

    async def renewed(self, refused: Secret | None = None) -> Credential:
        """Return a credential, after a renewal if need be; everyone waits for the same one.

        Args:
            refused: The access token that the provider just answered with 401. It is never returned.

        Raises:
            Unavailable: There is none, or not within 40 s.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_s
        for _ in range(_ROUNDS):
            ready = self._known.ready(refused)
            if ready is not None:
                return ready
            if loop.time() >= until or (self._finishing and not self._is_renewing()):
                break
            # asyncio.wait leaves the task alone, whether we are cancelled or out of time.
            await asyncio.wait({self._renewing(FRESH_S)}, timeout=until - loop.time())
        usable = self._known.usable_at_last(refused)
        if usable is not None:
            return usable
        raise Unavailable(to_waiting_user(self._name, api_key=self.is_api_key), retry_after_s=1)

    def state(self) -> Standing:
        """Return where the credential stands. A plain call."""
        return self._known.state()

    @property
    def mend(self) -> str:
        """What the operator runs or does for another credential."""
        return self._known.mend

    # In the background

    async def run(self) -> None:
        """Watch the file and renew in time, until cancelled. Cancelling it does not cancel a renewal."""
        while True:
            changed = await self._look(only_if_changed=True)
            mono = self._clock.monotonic()
            if self._known.unsaved is not None and (changed or mono >= self._save_at):
                self._save_again()
            outlook = self._known.outlook
            if changed or mono >= self._check_at or (outlook.failures and mono >= outlook.rest_until):
                self._known.note_end()
                if self._known.is_due():
                    self._renewing(None)
                self._check_at = mono + self._interval_s
            await asyncio.sleep(_WATCH_S)

    async def settle(self) -> None:
        """End what was begun, for a credential that is not used any more: begin nothing but saving."""
        while self._is_renewing() or self._known.unsaved is not None:
            if self._known.unsaved is not None and self._clock.monotonic() >= self._save_at:
                self._save_again()
            await asyncio.sleep(_WATCH_S)

    async def look(self) -> None:
        """Read the file, if it changed since it was last read."""
        await self._look(only_if_changed=True)

    async def check(self) -> None:
        """Do one step of ``run`` and wait for what it began, at most as long as a request would."""
        await self._look(only_if_changed=True)
        begun: set[asyncio.Task[None]] = set()
        if self._known.unsaved is not None:
            begun.add(self._save_again())
        self._known.note_end()
        if self._known.is_due():
            begun.add(self._renewing(None))
        if begun:
            await asyncio.wait(begun, timeout=self._wait_s)

    async def finish(self) -> None:
        """Wait at most 60 s for a renewal in flight and for what is not yet saved; then let go of the lock.

        Nothing is begun any more: a renewal that still waits for its turn is given up.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + FINISH_WAIT_S
        self._finishing = True
        if self._renewal is not None and not self._renewal.done():
            if self._waits_for_lock:
                self._renewal.cancel()
            await asyncio.wait({self._renewal}, timeout=FINISH_WAIT_S)
        while self._known.unsaved is not None and loop.time() < until:
            await asyncio.wait({self._save_again()}, timeout=until - loop.time())
            if self._known.unsaved is not None:
                await asyncio.sleep(max(0.0, min(_WATCH_S, until - loop.time())))
        if self._known.unsaved is not None:
            self._known.lost()
        await self._unlock(always=True)

    async def _look(self, *, only_if_changed: bool = False) -> bool:
        """Read the file, and tell whether there was anything to read."""
        async with self._on_file:
            try:
                known = only_if_changed and self._known.is_read
                if known and await self._store.version() == self._known.seen:
                    return False
                self._known.adopt(await self._store.load())
            except StoreError as exc:
                self._known.unreadable(exc)
                return False
            return True

    # Renewing

    def _is_renewing(self) -> bool:
        return self._renewal is not None and not self._renewal.done()

    def _renewing(self, need_s: float | None) -> asyncio.Task[None]:
        """Return the renewal in flight, or begin one, if less than ``need_s`` is left (see Known.wants)."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(need_s), name=f"renew {self._name}")
        return self._renewal

    async def _renew(self, need_s: float | None) -> None:
        try:
            if not self._known.is_read:
                await self._look()
            if self._known.held is None or not self._known.wants(self._known.held, need_s):
                return
            async with self._under_lock:
                await self._lock()
                try:
                    for _ in range(_ROUNDS):
                        if not await self._renew_locked(need_s):
                            break
                finally:
                    await self._unlock()
        except StoreError as exc:
            self.renewal_failures += 1
            self._known.cannot_renew(exc)
        except Exception as exc:
            self.renewal_failures += 1
            self._known.bug(exc)

    async def _renew_locked(self, need_s: float | None) -> bool:
        """Renew if it is still needed; return whether to look once more, at another login in the file."""
        await self._look()
        held = self._known.held
        if held is None or not self._known.wants(held, need_s) or not self._known.may_try(held):
            return False
        if self._known.unsaved is not None:
            try:
                await self._save()
            except BrokenCredential:
                pass  # what is on disk is no worse off for one more renewal, which memory needs
            else:
                return True
        await self._store.prepare()
        return await self._spend(held)

    async def _spend(self, held: Held) -> bool:
        """Exchange the refresh token and keep what comes of it."""
        known = self._known
        reason = Reason.UNAUTHORIZED if held.credential.access == known.refused else Reason.EXPIRY
        sent_mono = self._clock.monotonic()
        outcome = await self._endpoint.post(self._issuer.request(held.credential, reason))
        wall, mono = self._clock.time(), self._clock.monotonic()
        match outcome:
            case NotSent(reason=why):
                self._failed(known.outlook.not_sent(mono, f"the token endpoint could not be reached: {why}"))
            case Unknown(reason=why):
                self._failed(known.outlook.unknown(sent_mono, f"no answer from the token endpoint: {why}"))
            case Answered(status=status) if status >= 500:
                self._failed(known.outlook.unknown(sent_mono, f"the token endpoint answered {status}"))
            case Answered(status=429):
                asked_s = retry_after_s(outcome.retry_after, wall)
                self._failed(known.outlook.asked_to_wait(mono, asked_s, "the token endpoint answered 429"))
            case Answered(status=status, members=members) if 200 <= status < 300:
                await self._received(held, members, wall, mono)
            case Answered(status=status, members=members):
                said = f"the token endpoint answered {status} {error_code(members) or ''}".rstrip()
                if self._issuer.is_permanent(status, members):
                    return await self._was_refused(held, said)
                self._failed(known.outlook.useless(mono, self._interval_s, said))
        return False

    async def _was_refused(self, held: Held, said: str) -> bool:
        """Look at the store once more: it may hold the successor of what was refused."""
        await self._look()
        now = self._known.held
        if now is not None and now.credential.refresh == held.credential.refresh:
            self._failed(self._known.outlook.final(said))
            return False
        return now is not None

    async def _received(self, held: Held, answer: Mapping[str, object], wall: float, mono: float) -> None:
        """Save what came, then use it."""
        known = self._known
        try:
            new = self._issuer.renewed(held.credential, answer, wall)
        except BrokenCredential:
            problem = "the token endpoint answered without a token"
            self._failed(known.outlook.useless(mono, self._interval_s, problem))
            return
        brings_access = new.access != held.credential.access
        later = replace(held, credential=new)
        if brings_access:
            self.renewals += 1
            later = hold(new, wall=wall, mono=mono, renewed_at=wall)
        before = known.unsaved
        spent = before.spent if before is not None else frozenset()
        replaced = before.replaced if before is not None else frozenset()
        known.unsaved = Unsaved(
            spent=spent | {held.credential.refresh},
            replaced=replaced | {held.credential.access},
            credential=new,
            document=known.document or b"{}",
            held=later,
        )
        try:
            await self._save()
        except Exception as exc:
            known.publish(later)
            self._not_saved(exc)
        if not brings_access and known.held is later:
            # A new refresh token alone: kept, but whoever waits still has no access token.
            problem = "the token endpoint answered without an access token"
            self._failed(known.outlook.useless(mono, self._interval_s, problem))

    def _failed(self, outlook: Outlook) -> None:
        self.renewal_failures += 1
        self._known.failed(outlook)

    # Saving

    async def _save(self) -> None:
        """Save what is not yet saved, unless somebody logged in meanwhile; then use what the file holds."""
        unsaved = self._known.unsaved
        if unsaved is None:
            return
        async with self._on_file:
            stored = await self._store.save(lambda current: over(current, unsaved, self._issuer))
            there = self._issuer.read(stored.document)
            self._known.unsaved, self._save_failures = None, 0
            ours = (unsaved.credential.access, unsaved.credential.refresh)
            if (there.access, there.refresh) != ours:
                self._known.adopt(stored)
                return
            self._known.seen, self._known.document = stored.version, stored.document
            if unsaved.held is not None and self._known.held is not unsaved.held:
                self._known.publish(unsaved.held)
            self._known.in_order()

    def _not_saved(self, exc: Exception) -> None:
        pause_s = min(2.0**self._save_failures, _LONGEST_SAVE_PAUSE_S)
        self._save_failures = min(self._save_failures + 1, 10)
        self._save_at = self._clock.monotonic() + pause_s
        self._known.not_saved(exc)

    def _save_again(self) -> asyncio.Task[None]:
        """Return the attempt to save that is under way, or begin one."""
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._try_to_save(), name=f"save {self._name}")
        return self._saving

    async def _try_to_save(self) -> None:
        async with self._under_lock:
            try:
                await self._lock()
                await self._save()
            except Exception as exc:
                self._not_saved(exc)
            finally:
                await self._unlock()

    async def _lock(self) -> None:
        """Take the store's lock, unless an unsaved token still holds it."""
        if not self._locked:
            self._waits_for_lock = True
            try:
                await self._store.lock()
            finally:
                self._waits_for_lock = False
            self._locked = True

    async def _unlock(self, *, always: bool = False) -> None:
        if self._locked and (always or self._known.unsaved is None):
            self._locked = False
            await self._store.unlock()
