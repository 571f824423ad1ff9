"""What stands between a client and a server: TLS, PgBouncer, a line that goes dead."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.postgres_server import Server, as_user, unprivileged

__all__ = ["Bouncer", "Wire", "certificates"]

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
_START = 30.0


def certificates(directory: Path, *names: str) -> tuple[Path, ssl.SSLContext]:
    """Make an authority and a server's certificate; return the authority's file and a context."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def is_address(name: str) -> bool:
        return name.replace(".", "").isdigit()

    own, theirs = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.now(UTC)

    def begun(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    authority = begun("authority", own).add_extension(x509.BasicConstraints(True, None), True)
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    root = authority.add_extension(usage, True).sign(own, hashes.SHA256())
    alternatives = x509.SubjectAlternativeName(
        [
            x509.IPAddress(ip_address(name)) if is_address(name) else x509.DNSName(name)
            for name in names
        ]
    )
    server = begun("server", theirs).add_extension(alternatives, False)
    signed = server.sign(own, hashes.SHA256())
    pem = serialization.Encoding.PEM
    files = directory / "root.crt", directory / "server.pem"
    files[0].write_bytes(root.public_bytes(pem))
    key = theirs.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files[1].write_bytes(key + signed.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1])
    return files[0], context


class Wire:
    """A line to a server that can speak TLS for it, and go dead: both sides stay connected.

    ``dead_after`` bytes of answers nothing goes through any more, either way; ``die()`` does that
    now.  ``answers`` is what a client without TLS hears when it asks for it.
    """

    def __init__(self, server: Server | None, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.dead_after: int | None = None
        self.connections = 0
        self._server = server
        self._tls = tls
        self._left = 0
        self._dead = asyncio.Event()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Wire]:
        tasks: set[asyncio.Task[None]] = set()
        writers: list[asyncio.StreamWriter] = []

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            writers.append(writer)
            self.connections += 1
            # cancelled by us alone, and asyncio of Python 3.11 complains of it
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer, writers)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            for writer in writers:
                writer.transport.abort()
            await asyncio.gather(*tasks, return_exceptions=True)

    def die(self) -> None:
        """Let nothing through from now on."""
        self._dead.set()

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        writers: list[asyncio.StreamWriter],
    ) -> None:
        if self._server is None:
            await asyncio.Event().wait()  # accepts, and says nothing ever
            return
        first = await reader.readexactly(8)
        upward, up = await asyncio.open_connection("127.0.0.1", self._server.port)
        writers.append(up)
        if first != _SSL_REQUEST:
            up.write(first)
        elif self._tls is None:
            writer.write(b"N")
        else:
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(self._tls)
        self._left = -1 if self.dead_after is None else self.dead_after
        await asyncio.gather(
            self._pump(reader, up, lambda data: data), self._pump(upward, writer, self._counted)
        )

    def _counted(self, data: bytes) -> bytes:
        if self._left >= 0:
            data = data[: self._left]
            self._left -= len(data)
            if not self._left:
                self._dead.set()
        return data

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        counted: Callable[[bytes], bytes],
    ) -> None:
        while data := await reader.read(65_536):
            if self._dead.is_set():
                await asyncio.Event().wait()
            writer.write(counted(data))
            await writer.drain()
        writer.close()


class Bouncer:
    """PgBouncer in transaction mode, with two connections to the server; ``close()`` ends it."""

    def __init__(self, server: Server, directory: Path) -> None:
        program = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            if os.getuid() == 0 and shutil.which("apt-get"):
                pytest.fail("no PgBouncer: apt-get install --no-install-recommends pgbouncer")
            pytest.skip("no PgBouncer here, and no way to install it")
        self.port = free_port()
        self._server = server
        config, users = server.directory / "bouncer.ini", server.directory / "users.txt"
        users.write_text('"postgres" ""\n')
        config.write_text(
            f"""
[databases]
* = host=127.0.0.1 port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
auth_file = {users}
pool_mode = transaction
default_pool_size = 2
max_client_conn = 50
""".replace("* = ", "* = user=postgres ")
        )
        self._log = (directory / "bouncer.log").open("wb")
        self._process = subprocess.Popen(
            [program, "-q", config],
            **as_user(unprivileged(), server.directory),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._wait(directory / "bouncer.log")

    def _wait(self, log: Path) -> None:
        import socket

        end = time.monotonic() + _START
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError(f"PgBouncer did not start:\n{log.read_text()}")

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
