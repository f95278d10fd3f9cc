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
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SETTINGS = ("-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB")


class Server:
    """A running server; `database` makes an empty one and returns its URL."""

    def __init__(self, socket: Path) -> None:
        self._socket, self._made = socket, 0

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._socket}"

    def database(self) -> str:
        import psycopg

        self._made += 1
        name = f"library{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)


@contextmanager
def running() -> Iterator[Server]:
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
    programs = home / "pgserver" / "pginstall" / "bin"
    data = folder / "data"
    common: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, **user}
    initdb = [programs / "initdb", "--no-sync", "-A", "trust", "-U", "postgres", "-D", data]
    subprocess.run([*initdb, "-E", "UTF8", "--locale=C.UTF-8"], check=True, **common)
    with (folder / "log").open("w") as log:
        command = [programs / "postgres", "-D", data, "-k", folder, *SETTINGS]
        server = subprocess.Popen(command, stderr=log, **common)
    try:
        _wait(programs, folder, server)
        yield Server(folder)
    finally:
        server.send_signal(signal.SIGINT)  # does not wait for clients to leave
        server.wait()
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
