"""docs/operations/kubernetes.md: its overlay builds beside a clone, and its tables are complete."""

import re

import kubernetes_validate
import yaml

from harness import run
from kubernetes_page import PAGE, PLATFORMS, block_of_kind, blocks, write
from kustomize import COMPONENTS, K8S, KUBERNETES, gateway_pod, kustomize, of_kind, settings
from values import seconds


def build(directory) -> list[dict]:
    return list(yaml.safe_load_all(kustomize(directory).stdout))


def test_overlay_of_the_page_sets_everything(overlay, clone):
    own = (overlay / "production.toml").read_text().replace("app.example.com", "shop.example")
    (overlay / "production.toml").write_text(own)
    objects = build(overlay)
    assert {o["metadata"]["namespace"] for o in objects} == {"events"}
    pod, container = gateway_pod(objects)
    assert container["image"] == "registry.example.com/sse-gateway:0.1.0"
    # The Deployment mounts the ConfigMap with the changed file.
    assert settings(objects)["tickets.issuer"] == "https://shop.example"
    [config] = [o for o in objects if o["kind"] == "ConfigMap"]
    assert config["metadata"]["labels"]["app.kubernetes.io/name"] == "sse-gateway"
    assert set(config["data"]) == {"gateway.toml", "production.toml"}
    assert pod["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]
    route = of_kind(objects, "HTTPRoute")["spec"]
    assert route["hostnames"] == ["events.example.com"] and "timeouts" in route["rules"][0]
    for o in objects:
        if o["kind"] != "HTTPRoute":
            kubernetes_validate.validate(o, KUBERNETES, strict=True)
    # The clone has no change.
    assert run("git", "status", "--porcelain", cwd=clone).stdout == ""


def test_remote_base_builds_the_same(overlay, clone):
    """A repository instead of a directory, as in the second example of the page."""
    beside = build(overlay)
    [remote] = [b for b in blocks(PAGE) if set(b) == {"resources"}]
    assert remote["resources"][0].endswith("/sse-gateway//k8s/overlays/production?ref=v0.1.0")
    text = (overlay / "kustomization.yaml").read_text()
    text = re.sub(r"\.\./sse-gateway/(\S+)", rf"file://{clone}//\1?ref=v0.1.0", text)
    (overlay / "kustomization.yaml").write_text(text)
    assert text.count("file://") == 3
    assert build(overlay) == beside


def test_every_component_is_listed_with_what_it_needs(built):
    table = PAGE[PAGE.index("## Components") : PAGE.index("## Changing the Secret")]
    rows = re.findall(r"^\| `([a-z-]+)` \| .*? \| (.*)\|$", table, re.M)
    assert sorted(name for name, _ in rows) == COMPONENTS
    base = {o["apiVersion"] for o in built("base")}
    for name, needs in rows:
        added = {o["apiVersion"] for o in built(f"base+{name}")} - base
        custom = {v for v in added if "." in v.split("/")[0] and not v.startswith("networking.k8s")}
        assert set(re.findall(r"`([a-z0-9.]+/v\w+)`", needs)) == custom, name


def test_secret_of_the_page_has_the_keys_of_the_overlay():
    [command] = re.findall(r"create secret generic sse-gateway.*?(?=\nkubectl)", PAGE, re.S)
    head = (K8S / "overlays/production/kustomization.yaml").read_text()
    keys = lambda text: set(re.findall(r"--from-literal=([\w-]+)=", text))
    assert keys(command) == keys(head) == {"ticket-secret", "redis-url"}


def test_times_of_the_page_are_those_of_the_manifests(built):
    deployment = of_kind(built("production"), "Deployment")["spec"]
    probe = gateway_pod(built("production"))[1]["livenessProbe"]
    within = probe["periodSeconds"] * (1 + probe["failureThreshold"])
    later = probe["terminationGracePeriodSeconds"]
    assert f"fails within {within} s, and the container ends {later} s later" in PAGE
    assert f"ready for {deployment['minReadySeconds']} s" in PAGE
    window = seconds(settings(built("production"))["drain.window"])
    assert f"`drain.window` ({window:.0f} s)" in PAGE
    assert f"no progress for {deployment['progressDeadlineSeconds']} s" in PAGE
    [seconds_] = {t["tolerationSeconds"] for t in deployment["template"]["spec"]["tolerations"]}
    assert f"replaces them {seconds_} s later" in PAGE


def test_objects_of_the_platforms_refer_to_those_of_the_base(built):
    service = of_kind(built("base"), "Service")
    ports = {p["name"]: p["containerPort"] for p in gateway_pod(built("base"))[1]["ports"]}
    for kind in ("GCPBackendPolicy", "HealthCheckPolicy"):
        target = block_of_kind(PLATFORMS, kind)["spec"]["targetRef"]
        assert target == {"group": "", "kind": "Service", "name": service["metadata"]["name"]}
    check = block_of_kind(PLATFORMS, "HealthCheckPolicy")["spec"]["default"]["config"]
    assert check["httpHealthCheck"] == {"port": ports["admin"], "requestPath": "/readyz"}
    ingress = block_of_kind(PLATFORMS, "Ingress")
    kubernetes_validate.validate(ingress, KUBERNETES, strict=True)
    annotations = ingress["metadata"]["annotations"]
    assert annotations["alb.ingress.kubernetes.io/healthcheck-port"] == str(ports["admin"])
    [path] = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"]["port"]["name"] == service["spec"]["ports"][0]["name"]
    # The sidecar outlives the gateway, within the grace period of the pod.
    sidecar = block_of_kind(PLATFORMS, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    [duration] = yaml.safe_load(sidecar["proxy.istio.io/config"]).values()
    values, pod = settings(built("base")), gateway_pod(built("base"))[0]
    drain = seconds(values["drain.delay"]) + seconds(values["drain.window"])
    assert drain + 10 < seconds(duration) < pod["terminationGracePeriodSeconds"]


def test_patches_of_the_platforms_apply(overlay):
    """The patches of GKE and Istio, and the Ingress of EKS, in an overlay of production."""
    [[admission]] = [b for b in blocks(PLATFORMS) if isinstance(b, list)]
    sidecar = yaml.safe_dump(block_of_kind(PLATFORMS, "Deployment"))
    (overlay / "ingress.yaml").write_text(yaml.safe_dump(block_of_kind(PLATFORMS, "Ingress")))
    resources = ["../sse-gateway/k8s/overlays/production", "ingress.yaml"]
    write(overlay, {"resources": resources, "patches": [admission, {"patch": sidecar}]})
    objects = build(overlay)
    rules = of_kind(objects, "NetworkPolicy")["spec"]["ingress"]
    assert len(rules) == 3 and rules[2]["ports"] == [{"port": "admin", "protocol": "TCP"}]
    assert of_kind(objects, "Ingress")
    annotations = of_kind(objects, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert set(annotations) == {"proxy.istio.io/config", "kubectl.kubernetes.io/default-container"}
    for o in objects:
        kubernetes_validate.validate(o, KUBERNETES, strict=True)
