"""Settings, durations and sizes in configuration files, and the memory that settings need."""

import re
import tomllib

from harness import ROOT


def defaults() -> dict[str, object]:
    """Every setting with its default value, parsed from config/gateway.toml."""
    text = (ROOT / "config/gateway.toml").read_text()
    return flatten(tomllib.loads(re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.M)))


def flatten(table: dict, prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in table.items():
        flat |= (
            flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def seconds(text: str) -> float:
    """`250ms`, `15s`, `2m`, `24h`."""
    number, unit = re.fullmatch(r"([\d.]+)(ms|s|m|h)", text.strip()).groups()
    return float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def size(value) -> int:
    """`512Mi`, `1Gi`, `256MiB`, `16MiB`, `14k`, `65536`."""
    number, unit = re.fullmatch(r"(\d+)(Ki|Mi|Gi|k)?B?", str(value)).groups()
    return int(number) * {None: 1, "k": 1000, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}[unit]


def memory_needed(values: dict[str, object]) -> int:
    """The memory of an instance in bytes: queues, both caches, process (32 MiB) and streams."""
    # Measured for an idle stream: 3.7 KiB over HTTP/1.1, 8 KiB over HTTP/2, 11 KiB over TLS. The
    # kernel adds 4.5 KiB, which count in the cgroup too.
    return (
        size(values["limits.queue_bytes_total"])
        # Of recent broadcasts, and of retained values.
        + 2 * size(values["history.replay_cache_bytes"])
        + values["limits.max_connections"] * (16 << 10)
        + (32 << 20)
    )
