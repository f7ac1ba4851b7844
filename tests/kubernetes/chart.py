"""Helm with the administrator's kubeconfig, and the first committed version of the chart."""

import os
from pathlib import Path
from subprocess import CompletedProcess

import yaml

from harness import ROOT, run
from helm import CHART, program
from kubectl import Kubectl


class Helm:
    """Helm in the namespace of a kubectl."""

    def __init__(self, kubectl: Kubectl):
        self.kubectl = kubectl

    def __call__(self, *arguments, **options) -> CompletedProcess:
        kubectl = self.kubectl
        env = {**os.environ, "KUBECONFIG": str(kubectl.config)}
        # The argument may download Helm before the command enters the network of a node.
        return run(
            *kubectl.prefix,
            program(),
            "--namespace",
            kubectl.namespace,
            *arguments,
            env=env,
            **options,
        )

    def upgrade(self, release: str, values: dict, chart: Path = CHART) -> CompletedProcess:
        """Installs a release, or upgrades it to a chart and values."""
        # The name of the images that the nodes have.
        image = ("--set", "image.repository=sse-gateway")
        return self(
            *("upgrade", "--install", release, chart, "--values", "-", *image),
            input=yaml.safe_dump(values),
        )


def first_chart(directory: Path) -> Path:
    """Extracts the chart of the first commit that contains it."""
    added = run(
        "git",
        "-C",
        ROOT,
        "log",
        "--diff-filter=A",
        "--format=%H",
        "--",
        CHART.relative_to(ROOT) / "Chart.yaml",
    ).stdout.split()
    assert added, "the history does not contain the first chart; use a full clone"
    archive = directory / "chart.tar"
    run("git", "-C", ROOT, "archive", f"--output={archive}", added[-1], CHART.relative_to(ROOT))
    run("tar", "--extract", f"--file={archive}", f"--directory={directory}")
    return directory / CHART.relative_to(ROOT)
