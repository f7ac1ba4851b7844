"""Draws docs/images/bench-cpu.png and bench-memory.png from docs/benchmarks.json: `plot.py [FOLDER]` (docs).

Points are medians of the rounds, bars reach from the least to the most.
"""

import json
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Okabe and Ito: told apart with any colour vision. Markers and dashes differ as well.
STYLES = {
    "sse-gateway": ("#0072B2", "o", "-"),
    "plain-actix": ("#E69F00", "s", "--"),
    "send-loop": ("#000000", "^", ":"),
    "nchan": ("#009E73", "D", "-."),
    "centrifugo": ("#D55E00", "v", "-"),
    "mercure": ("#CC79A7", "P", "--"),
}
FONT_POINTS = 12


def series(server, value):
    """[(streams, median, least, most)] of one server; value(rung) is None where nothing was measured."""
    found = {}
    for rung in (rung for each in server["rounds"] for rung in each):
        if (measured := value(rung)) is not None:
            found.setdefault(rung["streams"], []).append(measured)
    return [(streams, statistics.median(values), min(values), max(values)) for streams, values in sorted(found.items())]


def fell_behind(server, size, streams):
    """Whether most rounds had a p99 above the time between two broadcasts: CPU per delivery is then too low."""
    late = [rung["load"]["latency"]["p99_ms"] > 1000 / rung.get("rate", size["rate"])
            for each in server["rounds"] for rung in each if rung["streams"] == streams and rung["load"]]
    return sum(late) * 2 > len(late)


def plot(results, value, title, unit, file, mark_behind):
    """One line for each server; `mark_behind`: white where it could not keep up."""
    figure, axes = plt.subplots(figsize=(8, 4.8), facecolor="white")
    for server in results["servers"]:
        points = series(server, value)
        if not points:
            continue
        color, marker, dashes = STYLES[server["name"]]
        streams, median, least, most = zip(*points)
        below = [m - low for m, low in zip(median, least)]
        above = [high - m for m, high in zip(median, most)]
        width = 3 if server["name"] == "sse-gateway" else 1.8
        axes.errorbar(streams, median, yerr=(below, above), label=server["name"], color=color, marker=marker,
                      linestyle=dashes, linewidth=width, markersize=7, capsize=4, elinewidth=1.2)
        if mark_behind:
            behind = [(x, y) for x, y in zip(streams, median) if fell_behind(server, results["size"], x)]
            axes.plot(*zip(*behind) if behind else ((), ()), linestyle="", color=color, marker=marker, markersize=7,
                      markerfacecolor="white", zorder=5)
    machine = results["machine"]
    axes.set_title(title, loc="left", fontsize=FONT_POINTS + 2, fontweight="bold")
    axes.set_xlabel("streams", fontsize=FONT_POINTS)
    axes.set_ylabel(unit, fontsize=FONT_POINTS)
    axes.set_xticks(results["size"]["streams"], [f"{count / 1000:g} k" for count in results["size"]["streams"]])
    axes.tick_params(labelsize=FONT_POINTS - 1)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=FONT_POINTS - 1, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    size = results["size"]
    bound = f" (at most {size['max_deliveries_per_s']:,.0f} deliveries/s)" if "max_deliveries_per_s" in size else ""
    note = (f"{size['rate']:g} broadcasts/s of {size['payload_bytes']} bytes{bound}; {machine['cores']} x {machine['cpu']}, {machine['date']}\n"
            f"medians of {size['rounds']} rounds, bars: least to most"
            + ("; white: fell behind, several events in a write, so too low" if mark_behind else ""))
    figure.text(0.01, 0.005, note, fontsize=FONT_POINTS - 4, color="#555555")
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main():
    """Reads the results and draws both."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    results = json.loads((folder / "benchmarks.json").read_text())
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)

    def cpu(rung):
        return ((rung["load"] or {}).get("server_cpu") or {}).get("total_s")

    def memory(rung):
        idle = rung["memory"].get("server_bytes_per_idle_stream")
        return None if idle is None else idle / 1024

    plot(results, cpu, "CPU of the server per million deliveries", "CPU seconds", images / "bench-cpu.png", True)
    plot(results, memory, "Memory of the server per idle stream (PSS)", "KiB", images / "bench-memory.png", False)


if __name__ == "__main__":
    main()
