"""Writes k8s/components/prometheus-rule/prometheusrule.yaml from deploy/prometheus/alerts.yaml.

kustomize cannot put a file of rules into a resource; so there is a copy, and test_kustomize.py checks that it is one.
Run it after a change of the rules: python3 tests/deploy/sync.py
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "deploy/prometheus/alerts.yaml"
COPY = ROOT / "k8s/components/prometheus-rule/prometheusrule.yaml"

HEAD = """\
# Written by tests/deploy/sync.py from deploy/prometheus/alerts.yaml. Change that file, and run it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sse-gateway
  labels:
    app.kubernetes.io/name: sse-gateway
spec:
"""


def copy() -> str:
    """The text of the copy: the rules, comments and all, two columns further in."""
    rules = SOURCE.read_text()
    rules = rules[rules.index("groups:\n") :]
    return HEAD + "".join(f"  {line}" if line.strip() else line for line in rules.splitlines(keepends=True))


if __name__ == "__main__":
    COPY.write_text(copy())
