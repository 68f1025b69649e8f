"""The table, the raw figures and the plot of one run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.row import Row


def spread(values: list[float]) -> str:
    """Median with min–max."""
    if not values:
        return "—"
    digits = 0 if median(values) >= 1000 else 1 if median(values) >= 100 else 2
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def line(row: Row) -> str:
    """One row as Markdown."""
    measured = " / ".join(f"{spread(values)} {label}" for label, values in row.measured.items())
    raw = ", ".join(f"{name} {spread(values)}" for name, values in row.values.items())
    void = ", ".join(f"{name} void" for name in row.void)
    unit = f" {row.unit}" if row.unit else ""
    behind = f"{raw}{unit}" + (f"; {void}" if void else "")
    return f"| {row.what} | {row.must} | {row.aim} | {measured or 'void'} | {behind} |"


def table(rows: list[Row]) -> str:
    """The budget and what was measured."""
    head = "| what | must | aim | measured | behind it |\n|---|---|---|---|---|"
    return "\n".join([head, *map(line, rows)])


def text(machine: dict[str, Any], rows: list[Row]) -> str:
    """The whole report: table, machine, how."""
    facts = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in machine.items())
    return f"{table(rows)}\n\nMedians of the rounds with min–max.\n\n{facts}\n"


def save(directory: Path, name: str, machine: dict[str, Any], rows: list[Row]) -> list[Path]:
    """Write raw JSON, the report and the plot; their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    raw, page, picture = (directory / f"{name}.{kind}" for kind in ("json", "md", "png"))
    raw.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    page.write_text(text(machine, rows))
    written = [raw, page]
    drawn = [row for row in rows if row.unit == "µs" and row.values]
    if drawn:
        _plot(picture, drawn)
        written.append(picture)
    return written


def _plot(path: Path, rows: list[Row]) -> None:
    """CPU per request or chunk, one panel per row, a bar per server."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(rows), figsize=(4 * len(rows), 3.6), squeeze=False)
    for panel, row in zip(panels[0], rows, strict=True):
        names = list(row.values)
        middles = [median(row.values[name]) for name in names]
        low = [middle - min(row.values[name]) for name, middle in zip(names, middles, strict=True)]
        high = [max(row.values[name]) - middle for name, middle in zip(names, middles, strict=True)]
        colours = ["#2a6f97" if name == "penstock" else "#b0b7bd" for name in names]
        bars = panel.bar(names, middles, yerr=[low, high], color=colours, capsize=4)
        panel.bar_label(bars, [f"{middle:.0f}" for middle in middles], padding=3)
        panel.set_title(row.what.replace(" ÷ nginx", ""), fontsize=10)
        panel.set_ylabel("CPU, µs")
        panel.margins(y=0.2)
        if max(middles) > 50 * min(middles):
            panel.set_yscale("log")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
