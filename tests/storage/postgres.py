"""A throw-away PostgreSQL server: a new cluster in a temporary folder, behind a socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

BINARIES: Final = Path("/usr/lib/postgresql/15/bin")
ACCOUNT: Final = "postgres"
FORGETFUL: Final = "-c fsync=off -c full_page_writes=off -c listen_addresses=''"
"""What it has committed survives an end of the server, not one of the machine."""
FAST: Final = f"{FORGETFUL} -c synchronous_commit=off"


class PostgresMissingError(Exception):
    """PostgreSQL 15 is not installed; the tests of the store cannot be run without it."""


class PostgresServer:
    """One server for a whole test run; `stop` removes it and all it held."""

    def __init__(self, options: str = FAST) -> None:
        if not (BINARIES / "initdb").is_file():
            raise PostgresMissingError(f"no {BINARIES}/initdb: install the package postgresql-15")
        self._folder = Path(tempfile.mkdtemp(prefix="wetread-pg-"))
        if os.geteuid() == 0:
            account = pwd.getpwnam(ACCOUNT)
            os.chown(self._folder, account.pw_uid, account.pw_gid)
        self._data = str(self._folder / "data")
        self._options = f"{options} -k {self._folder}"
        self._run(
            "initdb", "-D", self._data, "-U", ACCOUNT, "-A", "trust", "-E", "UTF8", "--no-sync"
        )
        self.start()

    def url(self, database: str) -> str:
        """Return the URL of a database of this server."""
        return f"postgresql+psycopg://{ACCOUNT}@/{database}?host={self._folder}"

    def create(self, database: str, template: str = "template0") -> str:
        """Make a database; return its URL."""
        self._run("createdb", "-h", str(self._folder), "-U", ACCOUNT, "-T", template, database)
        return self.url(database)

    def start(self) -> None:
        """Start the server, at first or after `crash`."""
        log = str(self._folder / "server.log")
        self._run("pg_ctl", "-D", self._data, "-l", log, "-o", self._options, "-w", "start")

    def crash(self) -> None:
        """End the server at once, whatever it is doing; `start` recovers what was committed."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def stop(self) -> None:
        """End the server and remove its files."""
        self.crash()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        as_account = ["runuser", "-u", ACCOUNT, "--"] if os.geteuid() == 0 else []
        subprocess.run(
            [*as_account, str(BINARIES / program), *arguments],
            check=True,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
