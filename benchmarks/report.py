"""The results of compare.py as Markdown."""

import math


def mean(ratios):
    """The geometric mean; None of nothing."""
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios else None


def of(record):
    """Ratio to the limit (None without one) and speed-up by peer of a record; nothing where fastbn itself is wrong."""
    ours = record["ms"].get("fastbn")
    if ours is None:
        return None, {}
    limit = record["limit_ms"] and ours / record["limit_ms"]
    return limit, {peer: ms / ours for peer, ms in record["ms"].items() if peer != "fastbn"}


def caption(results):
    """Machine, versions and conditions in one sentence."""
    machine = results["machine"]
    caches = [f"{name} {size / (1 << 20):g} MiB" for name, size in machine["caches"].items()]
    where = ", ".join([machine["processor"], f"{machine['cores']} cores", *caches])
    threads = f"{results['threads']} thread" + "s" * (results["threads"] != 1)
    return f"{where}; {threads}, float32; {', '.join(results['versions'])}."


def notes(results):
    """What one has to know to read the tables."""
    yield (
        "`MB`: size of x. `ms`: time of fastbn. `limit`: time of the sweeps over memory that the pass cannot do "
        "without; `x limit`: fastbn in times of it. Under each peer: how many times faster fastbn is."
    )
    yield (
        "The limit of forward and inference is a streaming copy of x into y, that of backward x + dy into dx. Channels "
        f"last and (N, C) add, in training, a read of what is summed over, x or x and dy: {results['read']}. What a "
        "cache holds can be faster, or is limited by other things."
    )
    kept = "memory that malloc kept, without page faults" if results["malloc_keeps_memory"] else "new memory each time"
    yield (
        "Best of many short turns. Outputs exist before the call wherever a package can write to them; those that it "
        f"allocates are {kept}."
    )
    cells = results["records"] + results["fresh"]
    disturbed = sum(not record["quiet"] for record in cells)
    if disturbed:
        yield f"Other programs used the machine during {disturbed} of {len(cells)} cells, marked with *."
    if results["missing"]:
        yield "Not installed: " + "; ".join(results["missing"]) + "."


def number(ms):
    if ms is None:
        return "wrong"
    return f"{ms:.4f}" if ms < 0.1 else f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 100 else f"{ms:.0f}"


def ratio(value):
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def table(records, peers, title):
    """One row for each record, with the geometric means of the ratios at the bottom."""
    limited = any(record["limit_ms"] for record in records)
    kinds = len({record["layout"] for record in records}) > 1
    peers = [p for p in peers if p != "fastbn" and any(p in r["ms"] or p in r["faults"] for r in records)]
    head = ["shape", "MB", "ms", *(["limit", "x limit"] if limited else []), *peers]
    rows, faults = [], []
    for record in records:
        shape = f"{record['layout']} " * kinds + ",".join(map(str, record["shape"])) + "*" * (not record["quiet"])
        ours, (limit, speedups) = record["ms"].get("fastbn"), of(record)
        rows.append([
            shape,
            f"{record['bytes'] / 1e6:.3g}",
            number(ours),
            *([number(record["limit_ms"]), ratio(limit)] if limited else []),
            *("wrong" if peer in record["faults"] else ratio(speedups.get(peer)) for peer in peers),
        ])  # fmt: skip
        faults += [f"Not timed: {peer}, {shape}: {text}." for peer, text in record["faults"].items()]
    found = [of(record) for record in records]
    means = [mean([limit for limit, _ in found if limit])] if limited else []
    means += [mean([speedups[peer] for _, speedups in found if peer in speedups]) for peer in peers]
    rows.append(["geometric mean", "", "", *([""] if limited else []), *(f"**{ratio(value)}**" for value in means)])
    lines = [f"### {title}", "", line(head), line(["---", *["---:"] * (len(head) - 1)]), *map(line, rows)]
    return "\n".join([*lines, *([""] if faults else []), *faults])


def line(cells):
    return "| " + " | ".join(cells) + " |"


def tables(results):
    for key, whole in (("records", "{}, {}"), ("fresh", "{}, {}: calls as users write them")):
        records = results[key]
        for group in dict.fromkeys(record["group"] for record in records):
            for name in dict.fromkeys(record["pass"] for record in records):
                chosen = [record for record in records if record["group"] == group and record["pass"] == name]
                yield table(chosen, results["peers"], whole.format(name.capitalize(), group))


def markdown(results):
    return "\n\n".join([caption(results), "\n".join(f"- {note}" for note in notes(results)), *tables(results)])
