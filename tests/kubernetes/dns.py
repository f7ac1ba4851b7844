"""DNS of the cluster: dns.py PKI ADDRESS. Knows the Services that have an address.

CoreDNS would take minutes to build, and the tests need only these names.
"""

import json
import socketserver
import ssl
import struct
import sys
import threading
import time
import urllib.request
from pathlib import Path

SERVER = "https://192.0.2.1:6443"
TYPE_A = 1
NXDOMAIN = 3
addresses: dict[str, str] = {}


def follow_services(pki: Path):
    """Keeps `addresses` up to date."""
    context = ssl.create_default_context(cafile=pki / "ca.crt")
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    while True:
        try:
            url = f"{SERVER}/api/v1/services"
            with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                services = json.load(answer)["items"]
        except OSError as e:
            print("the API server cannot be reached:", e, flush=True)
            services = []
        for service in services:
            name, namespace = (service["metadata"][k] for k in ("name", "namespace"))
            address = service["spec"].get("clusterIP", "None")
            if address != "None":
                addresses[f"{name}.{namespace}.svc.cluster.local"] = address
        time.sleep(1)


def answer(query: bytes) -> bytes:
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += query[at] + 1
    end = at + 5
    (kind,) = struct.unpack(">H", query[at + 1 : at + 3])
    address = addresses.get(".".join(labels).lower())
    records = b""
    if address and kind == TYPE_A:
        # The name is a pointer to the question. Class IN, 1 second, 4 bytes.
        records = struct.pack(">HHHIH", 0xC00C, TYPE_A, 1, 1, 4)
        records += bytes(map(int, address.split(".")))
    flags = 0x8580 | (0 if address else NXDOMAIN)
    header = struct.pack(">HHHHH", flags, 1, bool(records), 0, 0)
    return query[:2] + header + query[12:end] + records


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        query, socket = self.request
        socket.sendto(answer(query), self.client_address)


if __name__ == "__main__":
    pki, address = Path(sys.argv[1]), sys.argv[2]
    threading.Thread(target=follow_services, args=(pki,), daemon=True).start()
    socketserver.ThreadingUDPServer((address, 53), Handler).serve_forever()
