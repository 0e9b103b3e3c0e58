"""The embedded Postgres, with real processes: shared, adopted, restarted, stopped by the last."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from eventflow.embedded import Embedded, account, install
from eventflow.embedded.cluster import Cluster
from eventflow.embedded.process import command_line
from eventflow.errors import StoreError, UsageError
from eventflow.store.pool import DISCONNECTED, connect_once

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="RUN AS ROOT to test this: it changes users")

REPOSITORY = Path(__file__).parents[2]

USER = """
import sys
from pathlib import Path
from eventflow.embedded import Embedded
with Embedded(Path(sys.argv[1])) as server:
    print(server.url, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a server's files in it, to be copied: initdb is most of a short test."""
    made = tmp_path_factory.mktemp("initialised")
    Cluster(made).create()
    return made / "postgres"


@pytest.fixture
def new_folder(tmp_path: Path) -> Iterator[Path]:
    """A data folder that is not there yet; whatever runs there afterwards is stopped."""
    yield tmp_path / "data"
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(postmaster(tmp_path / "data"), signal.SIGKILL)


@pytest.fixture
def folder(new_folder: Path, initialised: Path) -> Path:
    """A data folder that was used before."""
    new_folder.mkdir()
    subprocess.run(["cp", "-a", str(initialised), str(new_folder)], check=True)
    return new_folder


def postmaster(folder: Path) -> int:
    return int((folder / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])


def is_running(folder: Path) -> bool:
    return (folder / "postgres" / "postmaster.pid").exists() and command_line(postmaster(folder)) is not None


@contextlib.contextmanager
def user_process(
    folder: Path, executable: str = sys.executable, **options: object
) -> Generator[subprocess.Popen[str]]:
    """Another process that uses the server until it is told a line."""
    process = subprocess.Popen(
        [executable, "-c", USER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def kill_postmaster(folder: Path) -> None:
    pid = postmaster(folder)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: command_line(pid) is None)


def leave(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=30)
    assert process.returncode == 0


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


async def ask(url: str, query: str) -> object:
    connection = await connect_once(url)
    try:
        return await connection.fetchval(query)  # type: ignore[arg-type]
    finally:
        await connection.close()


async def test_data_outlives_the_server(new_folder: Path) -> None:
    async with Embedded(new_folder) as server:
        await ask(server.url, "CREATE TABLE public.kept AS SELECT 42 AS answer")
        first = server.url
    assert not is_running(new_folder)
    async with Embedded(new_folder) as server:
        assert await ask(server.url, "SELECT answer FROM public.kept") == 42
        assert server.url == first


async def test_durability_is_on_and_no_network_is_opened(folder: Path) -> None:
    async with Embedded(folder) as server:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await ask(server.url, f"SELECT current_setting('{setting}')") == "on"
        assert await ask(server.url, "SELECT current_setting('listen_addresses')") == ""
        assert await ask(server.url, "SELECT current_setting('wal_level')") == "logical"


def test_two_starters_at_once_share_one_server(new_folder: Path) -> None:
    with user_process(new_folder) as one, user_process(new_folder) as other:
        assert one.stdout is not None
        assert other.stdout is not None
        assert one.stdout.readline() == other.stdout.readline()
        pid = postmaster(new_folder)
        leave(one)
        assert postmaster(new_folder) == pid
        assert is_running(new_folder)
        leave(other)
    assert not is_running(new_folder)


def test_a_server_outlives_the_kill_of_its_user_and_is_adopted(folder: Path) -> None:
    with user_process(folder, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pid = postmaster(folder)
        os.killpg(process.pid, signal.SIGKILL)  # with all that belongs to its terminal
        process.wait()
    assert is_running(folder)
    with Embedded(folder):
        assert postmaster(folder) == pid
    assert not is_running(folder)


async def test_a_killed_server_is_started_again_by_whoever_notices(folder: Path) -> None:
    async with Embedded(folder) as one, Embedded(folder) as other:
        await ask(one.url, "CREATE TABLE public.kept AS SELECT 42 AS answer")
        kill_postmaster(folder)
        await asyncio.gather(one.ensure_running(), other.ensure_running(), one.ensure_running())
        assert await ask(other.url, "SELECT answer FROM public.kept") == 42


async def test_a_killed_server_waits_for_its_old_backends(folder: Path) -> None:
    async with Embedded(folder) as server:
        connection = await connect_once(server.url)
        backend = connection.get_server_pid()
        # Computes on, and does not notice that the postmaster is gone.
        busy = asyncio.ensure_future(
            connection.execute("DO $$ BEGIN FOR i IN 1..60000000 LOOP END LOOP; END $$")
        )
        while await ask(server.url, f"SELECT state FROM pg_stat_activity WHERE pid = {backend}") != "active":
            pass
        kill_postmaster(folder)
        assert command_line(backend) is not None
        await server.ensure_running()
        assert command_line(backend) is None
        assert await ask(server.url, "SELECT 1") == 1
        with contextlib.suppress(*DISCONNECTED):  # what it computed, it may still have said
            await busy
        connection.terminate()


def test_a_pid_file_of_another_live_process_is_stale(folder: Path) -> None:
    with Embedded(folder):
        pid_file = (folder / "postgres" / "postmaster.pid").read_text()
    # Of the server's own user: Postgres ignores processes that it may not signal, and its parent.
    stranger = subprocess.Popen(["sleep", "600"], **account.account_of(folder / "postgres").identity())
    try:
        forged = "\n".join([str(stranger.pid), *pid_file.split("\n")[1:]])
        (folder / "postgres" / "postmaster.pid").write_text(forged)
        owner = (folder / "postgres").stat()
        (recorded := Path((folder / "postgres.socket").read_text())).mkdir(mode=0o700)
        os.chown(recorded, owner.st_uid, owner.st_gid)
        (recorded / ".s.PGSQL.5432.lock").write_text(forged)
        with Embedded(folder):
            assert postmaster(folder) != stranger.pid
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen(["true"])
    wait_until(lambda: command_line(process.pid) is None)  # it has ended and was not waited for
    assert process.wait() == 0


def test_a_killed_initdb_is_repeated(new_folder: Path) -> None:
    (new_folder / "postgres.new" / "base").mkdir(parents=True)
    with Embedded(new_folder):
        assert not (new_folder / "postgres.new").exists()


async def test_a_folder_of_any_length_and_any_name_will_do(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a long name, and a blank = ü" * 4] * 5)
    async with Embedded(folder) as server:
        assert await ask(server.url, "SELECT 1") == 1
    assert not is_running(folder)


async def test_a_link_to_the_folder_is_the_same_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    async with Embedded(folder) as server, Embedded(tmp_path / "link") as same:
        assert same.url == server.url
        assert await ask(same.url, "SELECT 1") == 1


async def test_a_copied_folder_gets_a_server_of_its_own(folder: Path, tmp_path: Path) -> None:
    with Embedded(folder):
        pass
    subprocess.run(["cp", "-a", str(folder), str(tmp_path / "copy")], check=True)
    async with Embedded(folder) as one, Embedded(tmp_path / "copy") as other:
        assert one.url != other.url
        assert await ask(one.url, "SELECT 1") == await ask(other.url, "SELECT 1")


async def test_the_socket_folder_goes_and_comes_back_with_the_server(folder: Path) -> None:
    with Embedded(folder) as server:
        url = server.url
    assert not Path((folder / "postgres.socket").read_text()).exists()
    async with Embedded(folder) as server:
        assert server.url == url
        assert await ask(url, "SELECT 1") == 1


def test_locks_are_not_inherited_by_programs(folder: Path) -> None:
    with Embedded(folder):
        child = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        with (folder / "postgres.users").open() as users:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where the child holds it still
    finally:
        child.kill()
        child.wait()


async def test_a_cancelled_join_leaves_again(new_folder: Path) -> None:
    server = Embedded(new_folder)
    joining = asyncio.ensure_future(server.__aenter__())
    await asyncio.sleep(0)
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    assert not is_running(new_folder)


def test_a_folder_of_another_version_is_refused(folder: Path) -> None:
    with Embedded(folder):
        pass
    (folder / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(StoreError, match="Postgres 15"), Embedded(folder):
        pass


def test_a_foreign_folder_is_left_alone(new_folder: Path) -> None:
    (new_folder / "postgres").mkdir(parents=True)
    (new_folder / "postgres" / "letter.txt").write_text("mine")
    with pytest.raises(StoreError, match="cannot be used"), Embedded(new_folder):
        pass
    assert (new_folder / "postgres" / "letter.txt").read_text() == "mine"


def test_without_the_wheel_the_error_names_the_extra(
    new_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "_WHEEL", "no_such_wheel")
    with (
        pytest.raises(UsageError, match=r"eventflow\[embedded\].*EVENTFLOW_DATABASE_URL"),
        Embedded(new_folder),
    ):
        pass


def test_a_server_that_does_not_start_says_why(folder: Path) -> None:
    with Embedded(folder):
        pass
    with (folder / "postgres" / "postgresql.conf").open("a") as configuration:
        configuration.write("nonsense = on\n")
    with pytest.raises(StoreError, match="nonsense"), Embedded(folder):
        pass


@ROOT_ONLY
async def test_root_hands_the_server_to_nobody_and_opens_no_folder(new_folder: Path, tmp_path: Path) -> None:
    new_folder.mkdir()
    tmp_path.chmod(0o700)
    before = [(path, path.stat().st_mode) for path in (new_folder, *new_folder.parents)]
    async with Embedded(new_folder) as server:
        assert await ask(server.url, "SELECT 1") == 1
        assert (new_folder / "postgres").stat().st_uid == account._nobody().uid
    assert [(path, path.stat().st_mode) for path in (new_folder, *new_folder.parents)] == before


@ROOT_ONLY
async def test_root_may_keep_the_programs_below_a_private_home(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install._site_folder()
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for name in (install._WHEEL, f"{install._WHEEL}.libs"):
        shutil.copytree(site / name, private / name)
    monkeypatch.setattr(install, "_site_folder", lambda: private)
    async with Embedded(folder) as server:
        assert await ask(server.url, "SELECT 1") == 1
        assert "/tmp/eventflow-programs-" in (command_line(postmaster(folder)) or "")
    shutil.rmtree(next(iter(Path("/tmp").glob("eventflow-programs-*"))))


@ROOT_ONLY
async def test_root_that_may_not_become_another_uses_a_user_namespace(
    new_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not account._runs([*account._NAMESPACE, "true"]):
        pytest.skip("user namespaces are forbidden here")
    monkeypatch.setattr(account, "_can_become", lambda _account: False)
    async with Embedded(new_folder) as server:
        assert await ask(server.url, "SELECT 1") == 1
        assert (new_folder / "postgres").stat().st_uid == 0
        kill_postmaster(new_folder)
        await server.ensure_running()
        assert await ask(server.url, "SELECT 1") == 1
    monkeypatch.setattr(account, "_NAMESPACE", ("false",))
    async with Embedded(new_folder) as server:  # root's folder, but namespaces are gone
        assert await ask(server.url, "SELECT 1") == 1


def an_executable_for(as_user: dict[str, object]) -> str | None:
    for executable in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            command = [executable, "-c", "import eventflow.embedded"]
            if subprocess.run(command, check=False, **as_user).returncode == 0:  # type: ignore[call-overload]
                return executable
    return None


@ROOT_ONLY
def test_an_ordinary_user_and_then_root_use_one_folder() -> None:
    nobody = account._nobody()
    as_user: dict[str, object] = {
        "user": nobody.uid,
        "group": nobody.gid,
        "extra_groups": [],
        "cwd": "/",
        "env": {"PYTHONPATH": os.pathsep.join(entry for entry in [str(REPOSITORY), *sys.path] if entry)},
    }
    executable = an_executable_for(as_user)
    if executable is None:
        pytest.skip("NO PYTHON that an ordinary user may run: all lie below private homes")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, nobody.uid, nobody.gid)
        with user_process(Path(folder), executable, **as_user) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("postgresql://")
            with Embedded(Path(folder)):
                pass
            assert is_running(Path(folder))
            leave(process)
        assert not is_running(Path(folder))
        with Embedded(Path(folder)):
            pass
        with user_process(Path(folder), executable, **as_user) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("postgresql://")
            leave(process)
