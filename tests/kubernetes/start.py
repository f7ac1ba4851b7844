"""Starts a cluster for manual use, prints how to use it, and ends it on Ctrl-C: start.py api|nodes

`nodes` needs the variables that the target test-kubernetes in the Makefile sets.
"""

import contextlib
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy"))

import images
from api import ApiServer
from cluster import Cluster
from paths import CACHE, KUBECTL

ENDS = {signal.SIGINT, signal.SIGTERM}


def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=CACHE)))
        if sys.argv[1] == "nodes":
            cluster = stack.enter_context(Cluster(directory / "nodes"))
            cluster.import_images(images.build_all(directory))
            cluster.until_nodes_are_ready()
            kubectl = cluster.kubectl
        else:
            kubectl = stack.enter_context(ApiServer(directory / "api")).kubectl
        kubectl.install_crds()
        print(*kubectl.prefix, KUBECTL, f"--kubeconfig={kubectl.config}", flush=True)
        signal.sigwait(ENDS)


main()
