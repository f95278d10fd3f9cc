"""A PostgreSQL of its own for the tests, from the binaries that the package pgserver carries.

PostgreSQL refuses to run as root: started by root it runs as `nobody`, from a copy of the binaries
that `nobody` can reach.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SETTINGS = ("-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB")


class Server:
    """A server on a folder; `database` makes an empty database and returns its URL."""

    def __init__(
        self, folder: Path, programs: Path, user: dict[str, Any], settings: Sequence[str]
    ) -> None:
        self._folder, self._programs, self._made = folder, programs, 0
        self._settings = settings
        self._common: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, **user}

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def database(self) -> str:
        import psycopg

        self._made += 1
        name = f"library{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def initialise(self) -> None:
        initdb = [self._programs / "initdb", "--no-sync", "-A", "trust", "-U", "postgres"]
        command = [*initdb, "-D", self._folder / "data", "-E", "UTF8", "--locale=C.UTF-8"]
        subprocess.run(command, check=True, **self._common)

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [self._programs / "postgres", "-D", self._folder / "data", "-k", self._folder]
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [*command, *self._settings], stderr=log, **self._common
            )
        _wait(self._programs, self._folder, self._process)

    def kill(self) -> None:
        """kill -9 of the server and all of its processes."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for process in (self._process.pid, *map(int, children.read_text().split())):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # does not wait for clients to leave
        self._process.wait()


@contextmanager
def running(settings: Sequence[str] = SETTINGS) -> Iterator[Server]:
    """Start a server in a temporary folder; stop it and delete the folder at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path must be short
    home = _package()
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        for name in ("pgserver/pginstall", "pgserver.libs"):
            shutil.copytree(home / name, folder / name)
        home = folder
        user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        shutil.chown(folder, "nobody")
    server = Server(folder, home / "pgserver" / "pginstall" / "bin", user, settings)
    try:
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _package() -> Path:
    """Where pgserver and the shared libraries beside it are installed."""
    found = find_spec("pgserver")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent.parent


def _wait(programs: Path, folder: Path, server: "subprocess.Popen[bytes]") -> None:
    """Until it answers; fail with its log if it does not within a minute."""
    asking = [programs / "pg_isready", "-q", "-h", folder, "-t", "1"]
    for _ in range(60):
        if server.poll() is None and subprocess.run(asking).returncode == 0:
            return
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError((folder / "log").read_text())
