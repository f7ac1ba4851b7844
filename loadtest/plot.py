"""Draws images/bench-cpu.png and images/bench-memory.png from benchmarks.json.

Usage: plot.py [DIRECTORY], by default docs. Points are medians of the rounds, bars show minimum and
maximum.
"""

import json
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Okabe-Ito palette, distinguishable with any colour vision. Markers and dashes differ as well.
STYLES = {
    "sse-gateway": ("#0072B2", "o", "-"),
    "plain-actix": ("#E69F00", "s", "--"),
    "send-loop": ("#000000", "^", ":"),
    "nchan": ("#009E73", "D", "-."),
    "anycable": ("#56B4E9", "X", ":"),
    "centrifugo": ("#D55E00", "v", "-"),
    "mercure": ("#CC79A7", "P", "--"),
    "pushpin": ("#7F7F7F", "*", "-."),
}
FONT_POINTS = 12


def series(server, value):
    """Returns [(streams, median, minimum, maximum)] of a server.

    value(point) returns None where nothing was measured.
    """
    found = {}
    for point in (point for points in server["rounds"] for point in points):
        if (measured := value(point)) is not None:
            found.setdefault(point["streams"], []).append(measured)
    return [
        (streams, statistics.median(values), min(values), max(values))
        for streams, values in sorted(found.items())
    ]


def fell_behind(server, size, streams):
    """Returns whether the p99 latency exceeded the broadcast interval in most rounds.

    CPU per delivery is then too low, because several events share a write.
    """
    late = [
        point["load"]["latency"]["p99_ms"] > 1000 / point.get("rate", size["rate"])
        for points in server["rounds"]
        for point in points
        if point["streams"] == streams and point["load"]
    ]
    return sum(late) * 2 > len(late)


def plot(results, value, title, unit, file, mark_behind):
    """Draws one line per server; with mark_behind, white markers where it fell behind."""
    figure, axes = plt.subplots(figsize=(8, 4.8), facecolor="white")
    for server in results["servers"]:
        points = series(server, value)
        if not points:
            continue
        color, marker, dashes = STYLES[server["name"]]
        streams, median, low, high = zip(*points)
        below = [m - value for m, value in zip(median, low)]
        above = [value - m for m, value in zip(median, high)]
        width = 3 if server["name"] == "sse-gateway" else 1.8
        axes.errorbar(
            streams, median, yerr=(below, above), label=server["name"], color=color, marker=marker,
            linestyle=dashes, linewidth=width, markersize=7, capsize=4, elinewidth=1.2,
        )
        if mark_behind:
            size = results["size"]
            behind = [(x, y) for x, y in zip(streams, median) if fell_behind(server, size, x)]
            axes.plot(
                *zip(*behind) if behind else ((), ()), linestyle="", color=color, marker=marker,
                markersize=7, markerfacecolor="white", zorder=5,
            )
    machine = results["machine"]
    axes.set_title(title, loc="left", fontsize=FONT_POINTS + 2, fontweight="bold")
    axes.set_xlabel("streams", fontsize=FONT_POINTS)
    axes.set_ylabel(unit, fontsize=FONT_POINTS)
    counts = results["size"]["streams"]
    axes.set_xticks(counts, [f"{count / 1000:g} k" for count in counts])
    axes.tick_params(labelsize=FONT_POINTS - 1)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        fontsize=FONT_POINTS - 1, frameon=False, ncols=3, loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
    )
    size = results["size"]
    limit = size.get("max_deliveries_per_s")
    limit = "" if limit is None else f" (at most {limit:,.0f} deliveries/s)"
    note = (
        f"{size['rate']:g} broadcasts/s of {size['payload_bytes']} bytes{limit}; "
        f"{machine['cores']} x {machine['cpu']}, {machine['date']}\n"
        f"medians of {size['rounds']} rounds, bars: minimum to maximum"
    )
    if mark_behind:
        note += "; white: fell behind (several events per write), so too low"
    figure.text(0.01, 0.005, note, fontsize=FONT_POINTS - 4, color="#555555")
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main():
    """Draws both images."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    results = json.loads((directory / "benchmarks.json").read_text())
    images = directory / "images"
    images.mkdir(parents=True, exist_ok=True)

    def cpu(point):
        return ((point["load"] or {}).get("server_cpu") or {}).get("total_s")

    def memory(point):
        idle = point["memory"].get("server_bytes_per_idle_stream")
        return None if idle is None else idle / 1024

    title = "CPU of the server per million deliveries"
    plot(results, cpu, title, "CPU seconds", images / "bench-cpu.png", True)
    title = "Memory of the server per idle stream (PSS)"
    plot(results, memory, title, "KiB", images / "bench-memory.png", False)


if __name__ == "__main__":
    main()
