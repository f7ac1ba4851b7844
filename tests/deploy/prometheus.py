"""A Prometheus that scrapes gateways and evaluates the alerts, with short durations."""

import json
import re
import urllib.parse

from harness import ROOT, Gateway, Process, eventually, free_port, get_json, tool

ALERTS = ROOT / "deploy/prometheus/alerts.yaml"


# Alerts that need a longer `for` than 1 s, because a busy machine renews leases late.
LONGER = {"SseGatewayNoStandby": "15s"}


def shortened(rules: str) -> str:
    start, *alerts = rules.split("- alert: ")
    alerts = [re.sub(r"for: \w+", f"for: {LONGER.get(a.split()[0], '1s')}", a) for a in alerts]
    rules = "- alert: ".join([start, *alerts])
    rules = re.sub(r"\[\d+[mhd](:\d+m)?\]", lambda m: "[20s:1s]" if m[1] else "[20s]", rules)
    assert not re.search(r"\[\d+[mhd]", rules)
    return rules


class Prometheus(Process):
    """Prometheus with the rules. It watches a file with the scrape targets."""

    def __init__(self, directory):
        self.targets, self.file = {}, directory / "targets.json"
        self._write()
        (directory / "alerts.yaml").write_text(shortened(ALERTS.read_text()))
        (directory / "prometheus.yml").write_text(
            json.dumps(
                {
                    "global": {
                        "scrape_interval": "1s",
                        "evaluation_interval": "1s",
                        "scrape_timeout": "1s",
                    },
                    "rule_files": [str(directory / "alerts.yaml")],
                    "scrape_configs": [
                        {
                            "job_name": "sse-gateway",
                            "file_sd_configs": [
                                {"files": [str(self.file)], "refresh_interval": "1s"}
                            ],
                        }
                    ],
                }
            )
        )
        self.port = free_port()
        super().__init__(
            tool("prometheus"),
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
        )
        eventually("Prometheus responds", lambda: self.alive() and "Server is ready" in self.output)

    def forget(self, installation: str, gateway: Gateway):
        """Stops scraping a gateway, as after its pod was removed."""
        self.targets[installation].remove(f"127.0.0.1:{gateway.admin}")
        self._write()

    def _write(self):
        part = self.file.with_suffix(".new")
        part.write_text(
            json.dumps(
                [{"targets": t, "labels": {"namespace": n}} for n, t in self.targets.items()]
            )
        )
        part.rename(self.file)

    def watch(self, installations: dict[str, list[Gateway]]):
        """Scrapes these installations. Waits for two scrapes of each, which rates need."""
        self.targets |= {
            name: [f"127.0.0.1:{g.admin}" for g in gateways]
            for name, gateways in installations.items()
        }
        self._write()
        wanted = {target for targets in self.targets.values() for target in targets}
        twice = 'count_over_time(up{job="sse-gateway"}[5m]) >= 2'
        eventually(
            "all gateways are scraped",
            lambda: wanted <= {series["metric"]["instance"] for series in self.query(twice)},
        )

    def query(self, expression: str) -> list:
        query = urllib.parse.quote(expression)
        return get_json(f"http://127.0.0.1:{self.port}/api/v1/query?query={query}")["data"][
            "result"
        ]

    def firing(self, alert: str, namespace: str | None = None) -> dict | None:
        for a in get_json(f"http://127.0.0.1:{self.port}/api/v1/alerts")["data"]["alerts"]:
            if (
                a["state"] == "firing"
                and a["labels"]["alertname"] == alert
                and a["labels"].get("namespace") == namespace
            ):
                return a
        return None
