"""Runs load.py in the network of a node."""

import json
import subprocess
import sys
from dataclasses import dataclass

from harness import Process, eventually
from paths import GUARD, HERE


@dataclass
class Result:
    """What the clients received, compared with what was published."""

    published: int
    received: int
    lost: int
    duplicated: int
    out_of_order: int
    gaps: int
    failures: list[str]
    reconnects: list[float]  # seconds since the epoch

    def assert_nothing_was_lost(self):
        assert self.published > 0 and self.received > 0
        faults = (self.lost, self.duplicated, self.out_of_order, self.gaps, self.failures)
        assert faults == (
            0,
            0,
            0,
            0,
            [],
        ), "(lost, duplicated, out of order, gaps, failures) must be (0, 0, 0, 0, [])"


class Load(Process):
    """`clients` streams through a Service, which resume, and a publisher."""

    def __init__(self, network: tuple, **options):
        self.clients = options["clients"]
        super().__init__(
            *network, sys.executable, HERE / "load.py", json.dumps(options), stdin=subprocess.PIPE
        )
        eventually(
            "all streams are open", lambda: self.state().get("ready") or self.lines[1:], GUARD
        )

    def state(self) -> dict:
        """The last report: open streams, reconnects, and published events."""
        assert self.alive() or "result" in self.lines[-1], self.output
        return json.loads(self.lines[-1]) if self.lines else {}

    def finish(self) -> Result:
        """Stops the publisher, waits for the last events, and returns the result."""
        self.child.stdin.close()
        self.child.wait(GUARD)
        self.reader.join(5)
        report = json.loads(self.lines[-1])
        assert "result" in report, self.output
        return Result(**report["result"])
