"""Streams survive rolling restarts, upgrades and hung pods: no event is lost or duplicated."""

import os
import signal
import time
from pathlib import Path

from harness import eventually, run
from images import EARLIER, OLD, PRESENT
from kustomize import K8S


def test_rolling_restart_moves_each_stream_once(gateways):
    gateways.apply(K8S, PRESENT, pods=6)
    with gateways.load(clients=300, rate=50) as load:
        gateways.restart(pods=6)
        result = load.finish()
    result.assert_nothing_was_lost()
    print(f"{len(result.reconnects)} reconnects of 300 streams")
    # Each stream has to leave its pod, and five in a hundred may meet another one that ends.
    assert 300 <= len(result.reconnects) <= 1.05 * 300


def test_upgrade_from_earlier_manifests_loses_nothing(gateways):
    gateways.apply(OLD / "source/k8s", EARLIER, pods=3)
    with gateways.load(clients=100, rate=50) as load:
        gateways.apply(K8S, PRESENT, pods=3)
        result = load.finish()
    result.assert_nothing_was_lost()
    assert len(result.reconnects) >= 100


def test_streams_of_hung_pod_move_within_40_seconds(gateways):
    gateways.apply(K8S, PRESENT, pods=3)
    with gateways.load(clients=60, rate=30) as load:
        pod = gateways.kubectl.json("get", gateways.pods()[0])
        streams = open_streams(gateways, pod)
        assert streams > 0
        os.kill(process_of(pod), signal.SIGSTOP)
        stopped = time.time()
        eventually("the streams moved", lambda: load.state()["reconnects"] >= streams, guard=120)
        result = load.finish()
    result.assert_nothing_was_lost()
    assert len(result.reconnects) == streams
    print(f"{streams} streams moved within {result.reconnects[-1] - stopped:.1f} s")
    assert result.reconnects[-1] - stopped <= 40


def open_streams(gateways, pod: dict) -> int:
    url = f"http://{pod['status']['podIP']}:9090/metrics"
    metrics = run(*gateways.cluster.network(), "curl", "--silent", "--fail", url).stdout
    [value] = [
        line.split()[1] for line in metrics.splitlines() if line.startswith("sse_connections ")
    ]
    return int(float(value))


def process_of(pod: dict) -> int:
    """The process of the gateway's container, in the namespace of the tests."""
    container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    [process] = [
        int(group.parent.name)
        for group in Path("/proc").glob("[0-9]*/cgroup")
        if container in _read(group)
    ]
    return process


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # the process ended
