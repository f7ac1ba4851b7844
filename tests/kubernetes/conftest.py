"""Shared fixtures: an API server without nodes, and a cluster of two nodes."""

import os

import pytest

import images
from api import ApiServer
from cluster import Cluster
from gateways import Gateways, Redis
from kustomize import built  # noqa: F401
from paths import CACHE


@pytest.fixture(scope="session")
def api(tmp_path_factory):
    """kubectl for an API server that has the custom resource definitions."""
    with ApiServer(tmp_path_factory.mktemp("api")) as server:
        server.kubectl.install_crds()
        yield server.kubectl


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two nodes that have the images of the gateway (present and earlier) and of Redis."""
    assert os.geteuid() == 0, "run as root: nodes are namespaces with mounts and cgroups"
    with Cluster(CACHE / f"nodes-{os.getpid()}") as cluster:
        cluster.import_images(images.build_all(tmp_path_factory.mktemp("images")))
        cluster.until_nodes_are_ready()
        yield cluster


@pytest.fixture
def gateways(cluster, request, tmp_path):
    """An empty namespace with a Secret for the gateway, and a new Redis."""
    namespace = request.function.__name__.removeprefix("test_").replace("_", "-")[:50]
    with Redis(cluster.network()):
        gateways = Gateways(cluster, namespace, tmp_path)
        yield gateways
        gateways.delete()
