"""`eventflow serve`: everything in one process, put together here and nowhere else.

Start: Postgres, schema, rule set, then sources, workers, HTTP and maintenance, one task each. Stop: no new
requests, no new batches, running tasks get the grace period, leases are handed back.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from eventflow.api.app import App
from eventflow.api.server import serve_http
from eventflow.embedded import Embedded
from eventflow.errors import UsageError
from eventflow.event import SourceNews, new_uid
from eventflow.forever import Step, forever
from eventflow.garbage import collect_rarely
from eventflow.ingest import Ingest
from eventflow.maintenance import Maintenance
from eventflow.measure import Measure
from eventflow.mirror import Mirror
from eventflow.reread import CurrentData
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.folder import read_folder, set_folder
from eventflow.rulefile.load import load
from eventflow.rulefile.ruleset import RuleSet
from eventflow.settings import Settings
from eventflow.sources import Sources
from eventflow.store import health, nodes, ownership, rulesets
from eventflow.store.failures import is_disconnect
from eventflow.store.migrate import migrate
from eventflow.store.pool import LEAST_PATIENCE, Pool, check_server, connect, connect_once
from eventflow.store.rescue import Rescuer
from eventflow.store.signals import Signal, Signals
from eventflow.worker.worker import Worker

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0
"""The net behind every signal."""

OVERDUE_SECONDS: Final = 15.0
"""How much longer than the grace period stopping may take: time for HTTP, hand-backs and the last results."""


@asynccontextmanager
async def postgres(settings: Settings) -> AsyncGenerator[tuple[str, Embedded | None]]:
    """The URL of the database: the one that is set, or the embedded one, started where it does not run."""
    if settings.database_url:
        yield settings.database_url, None
        return
    async with Embedded(settings.data) as embedded:
        yield embedded.url, embedded


async def prepare(url: str, settings: Settings) -> None:
    """Refuse a server that may lose what it acknowledged; bring the schema up to date."""
    conn = await connect_once(url)
    try:
        await check_server(conn, allow_unsafe=settings.allow_unsafe_durability)
        for name in await migrate(conn):
            log.info("migrated", migration=name)
    finally:
        await conn.close()


async def apply_folder(pool: Pool, path: Path, *, take_over: bool) -> rulesets.Applied:
    """Load the rule set at `path` and make it the current one, all or nothing.

    Raises `RuleSetError` where it does not load, `UsageError` where the database holds somebody else's.
    """
    path = await asyncio.to_thread(path.resolve)
    files = await asyncio.to_thread(read_folder, path)
    folder = set_folder(path)
    ruleset = await asyncio.to_thread(load, files, folder=folder, connectors=find_connectors())
    origin = rulesets.origin_of(path)
    async with pool.acquire() as conn:
        return await rulesets.apply(
            conn, files, folder=folder, origin=origin, code_version=ruleset.code_version, take_over=take_over
        )


class Service:
    """The parts of one running node."""

    def __init__(
        self, settings: Settings, url: str, pool: Pool, node: UUID, embedded: Embedded | None
    ) -> None:
        self._settings = settings
        self._url = url
        self._pool = pool
        self._node = node
        self._embedded = embedded
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._signals = Signals(str(node))
        self._revisions = Revisions(pool, find_connectors(), settings.data / "code")
        self._told: int | None = None
        self._app = App()
        self._ingest = Ingest(pool, settings.lease, self._revisions, self._signals)
        self._worker = Worker(
            pool,
            node=node,
            workflow_of=self._revisions.workflow,
            code_folder=self._revisions.code_folder,
            lease=settings.lease,
            wake=self._signals.event(Signal.tasks),
            wanted=self._wanted,
            announce=self._announce,
            data_of=CurrentData(self._revisions, pool),
        )
        self._rescuer = Rescuer(
            pool,
            settings.lease,
            self._revisions.workflow,
            self._wanted,
            tasks_ready=lambda: self._signals.send(Signal.tasks),
            announce=self._announce,
        )
        self._maintenance = Maintenance(pool, settings.lease, settings.retention)

    def _wanted(self, event_type: str) -> bool:
        """Does any rule ask for this type of our own events? If none does, a run's end only counts."""
        return self._revisions.current.wants(event_type)

    def _announce(self) -> None:
        self._signals.send(Signal.outbox)

    async def run(self, path: Path | None, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain within the grace period."""
        await self._beat_once()
        await self._revisions.refresh()
        async with asyncio.TaskGroup() as loops:
            sources = Sources(
                self._pool, self._node, self._settings.lease, self._ingest, self._signals, self._app, loops,
                self._wanted,
            )  # fmt: skip
            running = [
                loops.create_task(forever(name, step)) for name, step in self._steps(sources, path).items()
            ]
            worker = loops.create_task(forever("worker", self._worker.run))
            host, port = self._settings.address
            http = serve_http(self._app, host, port, explicit=self._settings.http_explicit)
            async with http as server:
                log.info("serving", url=server.url, node=str(self._node))
                await stop.wait()
                log.info(
                    "stopping",
                    tasks_running=self._worker.busy,
                    grace_seconds=self._settings.grace.total_seconds(),
                    hint="a second signal ends it at once",
                )
                overdue = _exit_after(self._settings.grace.total_seconds() + OVERDUE_SECONDS)
            await sources.stop()
            await self._worker.drain(self._settings.grace)
            for task in (worker, *running):
                task.cancel()
        await self._leave()
        overdue.cancel()
        log.info("stopped")

    def _steps(self, sources: Sources, path: Path | None) -> dict[str, Step]:
        async def reconcile() -> None:
            ruleset = await self._revisions.refresh()
            if ruleset.revision != self._told:
                self._told = ruleset.revision
                _tell_loaded(ruleset)
            await sources.reconcile(ruleset.sources)
            self._app.ready = True
            news = self._signals.event(Signal.ruleset)
            await _wait(news, POLL_SECONDS)
            news.clear()

        steps: dict[str, Step] = {
            "sources": reconcile,
            "outbox": self._ingest.run_outbox,
            "heartbeat": self._beat,
            "signals": self._listen,
            "rescue": self._rescuer.run,
            "maintenance": self._maintenance.run,
            "progress": Measure(self._pool, self._node, sources.readings).run,
            "health": self._tell_health,
            "mirror": Mirror(self._pool, sources.readings).run,
        }
        if path is not None:
            steps["watch"] = Watcher(path, self._pool, self._signals).run
        if self._embedded is not None:
            steps["postgres"] = self._keep_postgres
        return steps

    async def _beat_once(self) -> None:
        async with self._pool.acquire() as conn:
            peers, now = await nodes.beat(conn, self._node, self._name, self._settings.lease)
            self._signals.peers = peers
            self._signals.clock.set(now)
            await ownership.renew(conn, self._node, self._settings.lease)

    async def _beat(self) -> None:
        """Renew the leases of this node and its partitions three times per lease."""
        await self._beat_once()
        await asyncio.sleep(self._settings.lease.total_seconds() / 3)

    async def _tell_health(self) -> None:
        """News of sources in trouble, or out of it, for rules that ask."""
        async with self._pool.acquire() as conn:
            news = await health.tell(
                conn, self._revisions.current.sources.keys(), self._settings.lease, self._wanted
            )
        for event in news:
            if event.type == SourceNews.stopped:
                continue  # whoever met it has said so, with an error
            say = log.info if event.type == SourceNews.recovered else log.warning
            where = {"source": event.data["source"], "partition": event.data["partition"]}
            say(event.type.removeprefix("eventflow.").replace(".", "_"), **where, reason=event.data["reason"])
        if news:
            self._announce()
        await asyncio.sleep(POLL_SECONDS)

    async def _leave(self) -> None:
        """Hand back what this node still owns; without Postgres its leases run out by themselves."""
        try:
            async with self._pool.acquire() as conn:
                await nodes.leave(conn, self._node)
        except Exception as error:
            if not is_disconnect(error):
                raise
            log.warning("leave_failed", error=repr(error))

    async def _listen(self) -> None:
        patience = max(self._settings.lease, LEAST_PATIENCE)
        conn = await connect_once(self._url, node=self._node, patience=patience)
        try:
            await self._signals.run(conn)
        finally:
            conn.terminate()  # closing in order may hang, and what it raises then would hide a cancellation

    async def _keep_postgres(self) -> None:
        """The embedded server is started again by whoever notices first that it is gone."""
        assert self._embedded is not None
        await self._embedded.ensure_running()
        await asyncio.sleep(0.5)


def _tell_loaded(ruleset: RuleSet) -> None:
    """What this node works with from now on; nothing to do is worth a warning."""
    say = log.info if ruleset.rules and ruleset.sources else log.warning
    say(
        "ruleset_loaded",
        revision=ruleset.revision,
        rules=len(ruleset.rules),
        workflows=len(ruleset.workflows),
        sources=len(ruleset.sources),
    )


def _exit_after(seconds: float) -> asyncio.TimerHandle:
    """A Postgres that neither answers nor goes away must not keep the process: a kill loses nothing."""

    def give_up() -> None:
        log.error("stop_overdue", seconds=seconds)
        os._exit(0)

    return asyncio.get_running_loop().call_later(seconds, give_up)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    # Not `wait_for`: in Python 3.11 it loses a cancellation that comes together with the event.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Watcher:
    """Applies the folder again when its files have changed and then stayed the same for a look.

    A set that does not load changes nothing: the problems are logged, the last good one goes on.
    """

    def __init__(self, path: Path, pool: Pool, signals: Signals) -> None:
        self._path = path
        self._pool = pool
        self._signals = signals
        self._tried: str | None = None
        self._seen: str | None = None
        self._refused: str | None = None

    async def run(self) -> None:
        """Look once a second, or less often where looking itself takes long."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            digest = rulesets.digest_of(await asyncio.to_thread(read_folder, self._path))
        except UsageError as error:
            self._refuse(error)
        else:
            if digest == self._seen and digest != self._tried:
                await self._apply()
                self._tried = digest  # not before: Postgres may have been away
            self._seen = digest
        await asyncio.sleep(max(POLL_SECONDS, 50 * (loop.time() - started)))

    async def _apply(self) -> None:
        try:
            applied = await apply_folder(self._pool, self._path, take_over=False)
        except UsageError as error:
            self._refuse(error)
            return
        if applied.changed:
            log.info("ruleset_applied", path=str(self._path), revision=applied.revision)
            self._signals.send(Signal.ruleset)
        elif self._refused is not None:
            log.info("ruleset_unchanged", path=str(self._path), revision=applied.revision)
        self._refused = None

    def _refuse(self, error: UsageError) -> None:
        """Say so, once: a folder that is gone would be news every second."""
        if str(error) != self._refused:
            for reason in str(error).splitlines():
                log.error("ruleset_refused", path=str(self._path), reason=reason)
        self._refused = str(error)


def _stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM or SIGINT: drain. A second one: exit at once."""

    def heard(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heard, number)


async def serve(settings: Settings, path: Path | None, *, take_over: bool) -> None:
    """Run a node until it is told to stop. Raises `UsageError` for what a person must mend first."""
    stop = asyncio.Event()
    _stop_on_signals(stop)
    node = new_uid()
    async with postgres(settings) as (url, embedded):
        await prepare(url, settings)
        pool = await connect(
            url,
            node=node,
            size=30,
            idle_in_transaction=settings.lease * 2 / 3,
            patience=max(settings.lease, LEAST_PATIENCE),
        )
        try:
            if path is not None:
                applied = await apply_folder(pool, path, take_over=take_over)
                log.info("ruleset_applied", path=str(path), revision=applied.revision)
            collect_rarely()
            await Service(settings, url, pool, node, embedded).run(path, stop)
        finally:
            try:
                await asyncio.wait_for(pool.close(), timedelta(seconds=2).total_seconds())
            except (TimeoutError, OSError):
                pool.terminate()
