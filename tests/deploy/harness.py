"""Redis, gateways and clients for the tests. Deadlines only prevent tests from hanging."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import http.server
import json
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECRET = "secret-of-the-tests-with-more-than-32-bytes"
GUARD = 60.0

PACKAGES = {
    "redis-server": "redis-server",
    "redis-cli": "redis-tools",
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "haproxy": "haproxy",
    "buildah": "buildah",
    "docker-compose": "docker-compose",
    "systemd-analyze": "systemd",
    "chroot": "coreutils",
    "nginx": "nginx-light",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}


def tool(name: str) -> str:
    """The path of a program. If it is missing, the test fails and names the package to install."""
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if path is None:
        pytest.fail(
            f"{name} is not installed; "
            f"run apt-get install --no-install-recommends {PACKAGES.get(name, name)}",
            pytrace=False,
        )
    return path


def run(*command, check=True, timeout=300, **options) -> subprocess.CompletedProcess:
    """Runs a program and waits for it. A failure reports its output."""
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, timeout=timeout, **options
    )
    if check and done.returncode != 0:
        pytest.fail(
            f"{' '.join(map(str, command))}: exit status {done.returncode}\n"
            f"{done.stdout}{done.stderr}",
            pytrace=False,
        )
    return done


def require_root(purpose: str):
    """Skips the test for ordinary users. conftest.py reports it at the end of `make test`."""
    if os.geteuid() != 0:
        pytest.skip(f"needs root to {purpose}")


def unshare(*options) -> list[str]:
    """The command for a private mount namespace; options are passed to `unshare`.

    Ordinary users get it in a user namespace. If the kernel denies that, the test is skipped.
    """
    command = [tool("unshare"), "--mount", *options]
    if os.geteuid() != 0:
        command.append("--map-root-user")
        if run(*command, "mount", "-t", "tmpfs", "tmpfs", "/run", check=False).returncode != 0:
            pytest.skip("needs root or unprivileged user namespaces to mount file systems")
    return command


def gateway_binary() -> str:
    """The gateway to test: $SSE_GATEWAY_BIN, or the latest build in target/."""
    named = os.environ.get("SSE_GATEWAY_BIN")
    built = [ROOT / "target" / profile / "sse-gateway" for profile in ("release", "debug")]
    found = (
        [Path(named)]
        if named
        else sorted((b for b in built if b.exists()), key=lambda b: -b.stat().st_mtime)
    )
    if not found or not found[0].exists():
        pytest.fail(
            f"no gateway at {named or 'target/'}; run cargo build or set SSE_GATEWAY_BIN",
            pytrace=False,
        )
    return str(found[0])


def eventually(what: str, probe, guard: float = GUARD):
    """Waits for the first truthy result of `probe` and returns it."""
    end = time.monotonic() + guard
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"timeout after {guard:.0f} s: {what} (last result: {answer!r})")
        time.sleep(0.05)


def free_port() -> int:
    """A free port, for programs that do not accept port 0.

    Below the ephemeral range, so that no outgoing connection takes it before the program does.
    """
    while True:
        port = random.randrange(15_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port


class Process:
    """A child process with recorded output. Leaving the context kills it."""

    def __init__(self, *command, **options):
        self.lines: list[str] = []
        self.child = subprocess.Popen(
            [str(c) for c in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            **options,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.child.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def alive(self) -> bool:
        return self.child.poll() is None

    def kill(self):
        self.child.kill()
        self.child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.reader.join(5)


# The arguments of a node of a cluster.
CLUSTER = ("--cluster-enabled", "yes")


class Redis(Process):
    """A private Redis. `conf` is appended to its arguments."""

    def __init__(self, *conf: str):
        self.port = free_port()
        if "--cluster-enabled" in conf:
            # The default port of the bus may be above 65535.
            conf = (*conf, "--cluster-port", free_port())
        self.dir = tempfile.TemporaryDirectory(prefix="sse-deploy-redis-")
        super().__init__(
            tool("redis-server"),
            "--bind",
            "127.0.0.1",
            "--port",
            self.port,
            "--save",
            "",
            "--dir",
            self.dir.name,
            *conf,
        )
        eventually("Redis responds", lambda: self.cli("ping", check=False).stdout.strip() == "PONG")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def cli(self, *args, check=True, **options) -> subprocess.CompletedProcess:
        return run(tool("redis-cli"), "-p", self.port, *args, check=check, **options)

    def batch(self, commands) -> str:
        """Sends commands through one redis-cli process, one per line."""
        return self.cli(input="\n".join(commands) + "\n").stdout

    def __exit__(self, *_):
        super().__exit__()
        self.dir.cleanup()


class Gateway(Process):
    """A gateway on free ports. Settings are arguments: Gateway(url, limits__max_connections=2)."""

    def __init__(
        self,
        redis_url: str,
        binary: str | None = None,
        ready: bool = True,
        config: Path | None = None,
        **settings,
    ):
        given = {
            "redis__url": redis_url,
            "tickets__secret": SECRET,
            "server__listen": "127.0.0.1:0",
            "admin__listen": "127.0.0.1:0",
            "log__format": "json",
        }
        given |= {"drain__delay": "0s", "drain__window": "0s"} | settings
        env = {k: v for k, v in os.environ.items() if not k.startswith("SSE_GATEWAY__")}
        env |= {f"SSE_GATEWAY__{k.upper()}": str(v) for k, v in given.items() if v is not None}
        super().__init__(
            binary or gateway_binary(), "serve", *(("--config", config) if config else ()), env=env
        )
        listening = eventually("the gateway listens", self._listening)
        self.public, self.admin = (int(listening[k].rsplit(":", 1)[1]) for k in ("public", "admin"))
        if ready:
            self.until_ready()

    def _listening(self):
        if not self.alive():
            pytest.fail("the gateway exited:\n" + self.output)
        for line in list(self.lines):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("message") == "listening":
                    return entry
        return None

    def get(self, path: str) -> tuple[int, str]:
        return get(self.admin, path)

    def until_ready(self):
        eventually("the gateway is ready", lambda: self.get("/readyz")[0] == 200)

    def metric(self, series: str) -> float:
        """The value of a series such as `sse_gaps_total{reason="reset"}`, or 0 without it."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.get("/metrics")[1], re.M)
        return float(found[1]) if found else 0.0


class KeySet:
    """A server for a key set (JWKS): HTTP, or HTTPS if a host name is given.

    `authority` is the PEM file of the CA that signed the HTTPS certificate.
    """

    def __init__(self, directory: Path, name: str | None = None):
        key = directory / "issuer.pem"
        run(
            "openssl",
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            key,
        )
        der = subprocess.run(
            ["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"],
            capture_output=True,
            check=True,
        ).stdout
        x, y = (
            base64.urlsafe_b64encode(part).rstrip(b"=").decode()
            for part in (der[-64:-32], der[-32:])
        )
        body = json.dumps(
            {"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "use": "sig", "x": x, "y": y}]}
        ).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        if name:
            self.authority = directory / "authority.pem"
            for subject, file, more in (
                ("authority", "authority", ()),
                (
                    name,
                    "issuer-tls",
                    (
                        "-CA",
                        self.authority,
                        "-CAkey",
                        directory / "authority.key",
                        "-addext",
                        "basicConstraints=critical,CA:FALSE",
                    ),
                ),
            ):
                run(
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    f"/CN={subject}",
                    "-addext",
                    f"subjectAltName=DNS:{subject}",
                    "-keyout",
                    directory / f"{file}.key",
                    "-out",
                    directory / f"{file}.pem",
                    *more,
                )
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(directory / "issuer-tls.pem", directory / "issuer-tls.key")
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def get(port: int, path: str, **headers) -> tuple[int, str]:
    """Sends a GET request on loopback; returns status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def get_json(url: str):
    with urllib.request.urlopen(url, timeout=GUARD) as answer:
        return json.load(answer)


def ticket(user: str = "42", secret: str = SECRET) -> str:
    """A ticket for one session of a user."""
    b64 = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    iat = int(time.time())
    claims = {
        "sub": user,
        "aud": "sse-gateway",
        "iat": iat,
        "exp": iat + 60,
        "jti": str(uuid.uuid4()),
    }
    body = b64(b'{"alg":"HS256","typ":"JWT"}') + b"." + b64(json.dumps(claims).encode())
    return (body + b"." + b64(hmac.digest(secret.encode(), body, hashlib.sha256))).decode()


class Stream:
    """An event stream over HTTP/1.1.

    A small `receive_buffer` simulates a slow network while the client does not read.
    """

    def __init__(
        self,
        port: int,
        user: str = "42",
        last_id: str | None = None,
        token: str | None = None,
        receive_buffer: int | None = None,
        origin: str | None = None,
        tls: ssl.SSLContext | None = None,
    ):
        self.token = token or ticket(user)
        self.last_id = last_id
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(GUARD)
        sock.connect(("127.0.0.1", port))
        if tls:
            sock = tls.wrap_socket(sock, server_hostname="events.example.com")
        self.sock = sock  # http.client drops it after the response
        self.connection = http.client.HTTPConnection("127.0.0.1", port)
        self.connection.sock = sock
        headers = {"Last-Event-ID": last_id} if last_id else {}
        headers |= {"Origin": origin} if origin else {}
        self.connection.request("GET", f"/events?ticket={self.token}", headers=headers)
        self.answer = self.connection.getresponse()
        self.status = self.answer.status

    def next(self) -> dict:
        """The next event as fields such as `event` and `data`. Raises EOFError at the end."""
        event: dict = {}
        while True:
            try:
                line = self.answer.readline()
            except (OSError, http.client.HTTPException) as e:
                raise EOFError from e
            if not line:
                raise EOFError
            line = line.decode().rstrip("\r\n")
            if not line:
                if "id" in event:
                    self.last_id = event["id"]
                if event:
                    return event
                continue
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            event[field] = (
                event[field] + "\n" + value if field == "data" and "data" in event else value
            )

    def until(self, name: str) -> dict:
        """The next event with this name."""
        while True:
            event = self.next()
            if event.get("event") == name:
                return event

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.answer.close()
        self.connection.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
