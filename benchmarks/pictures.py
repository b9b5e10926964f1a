"""The results of compare.py as two pictures."""

import math
import textwrap

from benchmarks.report import caption, mean, of

COLORS = {  # Okabe and Ito: everyone can tell them apart
    "fastbn": "#d55e00",
    "PyTorch": "#0072b2",
    "oneDNN (blocked)": "#009e73",
    "JAX": "#cc79a7",
    "JAX, E[x²]": "#e69f00",
    "Numba": "#56b4e9",
    "NumPy": "#666666",
}
MARKERS = {"NCHW": ("o", "channels first"), "NHWC": ("s", "channels last"), "NC": ("^", "(N, C)")}
TIMES = "\N{MULTIPLICATION SIGN}"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}


def panels(rows, columns, size, **options):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, **options)


def dot(color, label, marker="o"):
    from matplotlib.lines import Line2D

    return Line2D([], [], marker=marker, linestyle="", color=color, label=label, markeredgewidth=0)


def ratios(axis):
    """Ticks at 1, 2, 5, 10, ... on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{TIMES}"))


def finish(figure, results, path, title, legend):
    """Title and legend above, machine and versions at the foot."""
    width, height = figure.get_size_inches()
    figure.suptitle(title, x=0.01, y=1 - 0.08 / height, ha="left", va="top", fontsize=12, fontweight="bold")
    figure.legend(
        handles=legend, loc="upper left", bbox_to_anchor=(0, 1 - 0.28 / height), ncols=len(legend),
        handletextpad=0.3, columnspacing=1.4,
    )  # fmt: skip
    foot = textwrap.fill(caption(results), int(width * 16))
    figure.text(0.01, 0.06 / height, foot, va="bottom", fontsize=7.5, color="#555555")
    figure.tight_layout(rect=(0, (0.12 + 0.13 * foot.count("\n")) / height, 1, 1 - 0.36 / height), w_pad=1.5)
    figure.savefig(path, dpi=160, facecolor="white")


def limit(results, path):
    """Time of fastbn and PyTorch, in times of the memory limit, over the size of x: a panel for each pass."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    passes = list(dict.fromkeys(record["pass"] for record in results["records"]))
    size = max(4.6, 3.4 * len(passes)), 4.4
    figure, axes = panels(1, len(passes), size, sharex=True, sharey=True)
    held = max(results["machine"]["caches"].values(), default=0)
    for ax, name in zip(axes[0], passes, strict=True):
        ax.set(title=name, xscale="log", yscale="log", xlabel="size of x")
        for peer, area, zorder in (("PyTorch", 20, 2), ("fastbn", 30, 3)):
            for layout, (marker, _) in MARKERS.items():
                kind = [r for r in results["records"] if (r["pass"], r["layout"]) == (name, layout)]
                chosen = [r for r in kind if peer in r["ms"]]
                ax.scatter(
                    [r["bytes"] for r in chosen], [r["ms"][peer] / r["limit_ms"] for r in chosen],
                    s=area, marker=marker, color=COLORS[peer], alpha=0.85, linewidths=0, zorder=zorder,
                )  # fmt: skip
        ax.axhline(1, color="black", linewidth=1, zorder=1)
        if held:
            ax.axvspan(1, held / (3 if name == "backward" else 2), color="#f1f1f1", zorder=0, linewidth=0)
        ax.grid(axis="y")
        ratios(ax.yaxis)
        ax.xaxis.set_major_locator(LogLocator())
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(size_label))
    sizes = [record["bytes"] for record in results["records"]]
    axes[0][0].set_xlim(min(sizes) / 2, max(sizes) * 2)
    axes[0][0].set_ylabel("time / memory limit")
    legend = [dot(COLORS[peer], peer) for peer in ("fastbn", "PyTorch")]
    legend += [dot("#999999", label, marker) for marker, label in MARKERS.values()]
    legend.append(Line2D([], [], color="black", linewidth=1, label="as fast as memory"))
    if held:
        legend.append(Patch(color="#e4e4e4", label="fits into the last cache"))
    finish(figure, results, path, "How near to the speed of memory", legend)


def size_label(size, _):
    if size < 1:
        return ""
    power = round(math.log10(size))
    return f"{10 ** (power % 3)} {['B', 'KB', 'MB', 'GB'][power // 3]}"


def speedup(results, path):
    """How many times faster fastbn is than each peer, over the feature maps: a panel for each pass and layout."""
    records = [r for r in results["records"] if r["group"].startswith("channels")]
    passes = list(dict.fromkeys(r["pass"] for r in records))
    groups = list(dict.fromkeys(r["group"] for r in records))
    most = max(sum(r["group"] == group for r in records) // len(passes) for group in groups)
    size = max(5.6, 3.4 * len(passes)), 1.1 + len(groups) * (0.5 + 0.22 * (most + 1))
    figure, axes = panels(len(groups), len(passes), size, sharex=True, sharey="row")
    for row, group in zip(axes, groups, strict=True):
        for ax, name in zip(row, passes, strict=True):
            ax.set(xscale="log", title=f"{name}, {group}")
            chosen = [r for r in records if (r["group"], r["pass"]) == (group, name)]
            found = [of(r)[1] for r in chosen]
            bottom = len(chosen) + 0.3
            for peer in results["peers"]:
                points = [(faster[peer], y) for y, faster in enumerate(found) if peer in faster]
                if points:
                    points.append((mean([x for x, _ in points]), bottom))
                    ax.scatter(*zip(*points, strict=True), s=26, color=COLORS[peer], alpha=0.9, linewidths=0, zorder=3)
            labels = [TIMES.join(map(str, r["shape"])) for r in chosen]
            ax.set_yticks([*range(len(chosen)), bottom], [*labels, "geometric mean"])
            ax.set_ylim(bottom + 0.6, -0.6)
            ax.axhline(bottom - 0.65, color="#888888", linewidth=0.7)
            ax.axvline(1, color="black", linewidth=1, zorder=1)
            ax.grid(axis="both")
            ax.tick_params(axis="y", length=0)
            ratios(ax.xaxis)
    speedups = [x for r in records for x in of(r)[1].values()]
    low = min(*speedups, 0.9) / 1.15
    axes[0][0].set_xlim(low, max(speedups) * 1.15)
    for ax in axes.flat:
        ax.axvspan(low, 1, color="#f1f1f1", zorder=0, linewidth=0)
    for ax in axes[-1]:
        ax.set_xlabel("time of the peer / time of fastbn")
    legend = [dot(COLORS[peer], peer) for peer in results["peers"] if peer != "fastbn"]
    finish(figure, results, path, "How many times faster fastbn is", legend)
