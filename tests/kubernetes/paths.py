"""Where the tests keep what they build and run, and how long they wait."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# Kubernetes takes minutes to build, so its location can be shared by several checkouts.
CACHE = Path(os.environ.get("SSE_KUBERNETES_DIR") or ROOT / ".cache/kubernetes").resolve()
BIN = CACHE / "bin"
API_SERVER = BIN / "kube-apiserver"
NODE = BIN / "node"
# Of the last cluster.
LOGS = CACHE / "logs"
# Of tests/deploy/requirements.txt.
KUBECTL = Path(sys.executable).with_name("kubectl")

# Seconds that starting and ending programs may take on a busy machine.
GUARD = 180
