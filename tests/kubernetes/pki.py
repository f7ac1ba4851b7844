"""Certificates and kubeconfigs of a cluster. openssl makes them, valid for two days."""

import json
from pathlib import Path

from harness import run, tool

# The name with which the API server calls kubelets, and the group that may do everything.
ADMINISTRATORS = "system:masters"


class Authority:
    """A certificate authority in a directory, and what it signed."""

    def __init__(self, directory: Path):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._openssl("req", "-x509", *self._key("ca"), "-subj", "/CN=cluster", *self._out("ca"))
        # Signs the tokens of service accounts.
        run(
            tool("openssl"),
            "ecparam",
            "-genkey",
            "-name",
            "prime256v1",
            "-noout",
            "-out",
            self.key("service-accounts"),
        )

    def crt(self, name: str) -> Path:
        return self.directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.directory / f"{name}.key"

    def sign(self, name: str, user: str, group: str = "", hosts: tuple[str, ...] = ()):
        """Signs a certificate for a user of the API or, with `hosts`, also for a server."""
        subject = (f"/O={group}" if group else "") + f"/CN={user}"
        extensions = [
            "basicConstraints=critical,CA:FALSE",
            "extendedKeyUsage=serverAuth,clientAuth",
        ]
        if hosts:
            extensions.append("subjectAltName=" + ",".join(hosts))
        self._openssl(
            "req",
            "-x509",
            "-CA",
            self.crt("ca"),
            "-CAkey",
            self.key("ca"),
            *self._key(name),
            "-subj",
            subject,
            *(word for e in extensions for word in ("-addext", e)),
            *self._out(name),
        )

    def kubeconfig(self, name: str, server: str) -> Path:
        """Writes the kubeconfig of a user, and returns its path."""
        path = self.directory / f"{name}.kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {
                            "name": "tests",
                            "cluster": {
                                "server": server,
                                "certificate-authority": str(self.crt("ca")),
                            },
                        }
                    ],
                    "users": [
                        {
                            "name": name,
                            "user": {
                                "client-certificate": str(self.crt(name)),
                                "client-key": str(self.key(name)),
                            },
                        }
                    ],
                    "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": name}}],
                    "current-context": "tests",
                }
            )
        )
        return path

    def _openssl(self, *arguments):
        run(tool("openssl"), *arguments, "-days", "2")

    def _key(self, name: str):
        return (
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            self.key(name),
        )

    def _out(self, name: str):
        return ("-out", self.crt(name))
