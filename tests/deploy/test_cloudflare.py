"""docs/deployment/cloudflare.md: the lines for HAProxy in a real HAProxy, before a gateway."""

import json
import re

import pytest

import test_balancer
from harness import ROOT, Gateway, Redis, eventually, get

PAGE = (ROOT / "docs/deployment/cloudflare.md").read_text()
[LINES] = re.findall(r"^```haproxy\n(.*?)^```", PAGE, re.M | re.S)
[REPLACED] = re.findall(r"^`(http-request set-header x-forwarded-for .*)` of$", PAGE, re.M)


@pytest.mark.parametrize(
    ("networks", "expected"),
    [("127.0.0.0/8", "198.51.100.7"), ("203.0.113.0/24", "127.0.0.1")],
    ids=["from-cloudflare", "past-cloudflare"],
)
def test_client_address_is_believed_only_from_cloudflare(
    tmp_path, monkeypatch, networks, expected
):
    (tmp_path / "cloudflare.lst").write_text(networks + "\n")
    text = test_balancer.CONFIG.read_text()
    assert text.count(f"    {REPLACED}\n") == 1 and LINES.count("/etc/haproxy/") == 1
    config = tmp_path / "changed.cfg"
    config.write_text(
        text.replace(f"    {REPLACED}\n", LINES.replace("/etc/haproxy/", f"{tmp_path}/"))
    )
    monkeypatch.setattr(test_balancer, "CONFIG", config)
    with (
        Redis() as redis,
        Gateway(redis.url, server__trusted_proxies="127.0.0.1/32") as gateway,
        test_balancer.Balancer(tmp_path, gateway) as balancer,
    ):
        get(balancer.port, "/events/poll", **{"CF-Connecting-IP": "198.51.100.7"})

        def logged():
            entries = [json.loads(line) for line in gateway.lines if "/events/poll" in line]
            return [entry["client"] for entry in entries]

        assert eventually("the request is logged", logged) == [expected]
