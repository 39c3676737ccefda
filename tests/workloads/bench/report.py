"""What was measured, as a table for people and as a plot. JSON is what both are made from."""
import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 (the backend comes first)

from .memory import MOST  # noqa: E402

WAYS = {
    "separate": ("one sandbox each", "#b4504b", "o"),
    "processes": ("awslambdaric's processes", "#c9962f", "s"),
    "shared": ("photons of one sandbox", "#2d6f9f", "D"),
}
TITLES = {"python": "Python", "java": "Java"}


def mb(size):
    """Megabytes (10^6) with three digits."""
    if size is None:
        return "–"
    value = size / 1e6
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percent(share):
    """A saving, as the papers write it."""
    return "–" if share is None else f"{'−' if share >= 0 else '+'}{abs(share) * 100:.1f} %"


def verdict(good):
    """Pass or miss."""
    return "pass" if good else "**miss**"


def markdown(data):
    """docs/photon-memory.md."""
    parts = [HEAD.format(versions=data["versions"])]
    if rows := data.get("workloads"):
        parts += [PLOT, summary_table(rows), TIME_NOTE, detail_tables(rows)]
    if merged := data.get("merged"):
        parts.append(merged_table(merged))
    if latency := data.get("latency"):
        parts.append(latency_table(latency))
    if bursts := data.get("burst"):
        parts.append(burst_table(bursts))
    if overloads := data.get("overload"):
        parts.append(overload_table(overloads))
    if creation := data.get("creation"):
        parts.append(creation_table(creation))
    parts.append(made_table(data))
    return "\n".join(parts)


HEAD = """# Memory and time of photons, measured

Made by `scripts/bench-photons`; do not edit. Not all of it at one time: [the end](#what-made-it) says what made which
line, when and of which revision. {versions}

The workloads are look-alikes of the published ones, see [tests/workloads](../tests/workloads/README.md). Memory is PSS
(`/proc/PID/smaps_rollup`) summed over all processes of a function's sandboxes, read while all C invocations are held at
the point where they have all the memory that they will have, after a round that is not measured; the middle of repeated
measurements. *Base* is C = 1, *increment* the slope of a straight line through all C. MB are 10^6 bytes. Files that
several sandboxes map from one image are in memory once and PSS divides them, so that separate sandboxes are not charged
for what the lazily loaded root file system already shares.
"""

PLOT = "![memory over C](photon-memory.svg)\n"

TIME_NOTE = """
*Time* is the execution time of C invocations at once in one sandbox over that in C sandboxes: medians, taking turns,
after a warm-up; the middle and the worst ratio over all C. At most 1.05 is asked of the middle one.
"""


def summary_table(rows):
    """One line for each workload and language."""
    lines = ["## Per added invocation", "",
             "| workload | | base MB | increment MB, photons | increment MB, separate | saved | published | | "
             "against awslambdaric's processes | time, middle (worst) | |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        step = row["increment"]
        rival = step.get("processes")
        against = "–" if not rival or step["shared"] is None else f"{mb(rival)} MB: {percent(1 - step['shared'] / rival)}"
        lines.append(
            f"| {row['workload']} | {TITLES[row['language']]} | {mb(row['base']['shared'])} | {mb(step['shared'])} | "
            f"{mb(step['separate'])} | {percent(row['saved'])} | {percent(row['target'])} | {verdict(row['memory_pass'])} | "
            f"{against} | {row['time_ratio']:.3f} ({row['time_ratio_worst']:.3f}) | {verdict(row['time_pass'])} |")
    for row in rows:
        if not row["one_sandbox"]:
            lines.append(f"\nThe worker did not put all photons of {TITLES[row['language']]} {row['workload']} into one sandbox: "
                         + ", ".join(f"{one['sandboxes']} at C = {one['c']}" for one in row["memory"]["shared"]) + ".")
    return "\n".join(lines) + "\n"


def detail_tables(rows):
    """All points."""
    lines = ["## Every point"]
    for row in rows:
        lines += ["", f"### {TITLES[row['language']]}, {row['workload']}", "",
                  "| C | photons MB | separate MB | awslambdaric MB | photons ms | separate ms | ratio |", "|---|---|---|---|---|---|---|"]
        for number, point in enumerate(row["memory"]["shared"]):
            time = row["times"][number]
            rival = row["memory"]["processes"][number]["pss"] if row["memory"]["processes"] else None
            lines.append(f"| {point['c']} | {mb(point['pss'])} | {mb(row['memory']['separate'][number]['pss'])} | {mb(rival)} | "
                         f"{time['shared'] * 1e3:.1f} | {time['separate'] * 1e3:.1f} | {time['ratio']:.3f} |")
    most = " and ".join(f"{count} of {name}" for name, count in MOST.items())
    lines += ["", f"At most {most} are measured at once: two CPUs and 24 GB do not do more of them, one sandbox each, in "
              "bearable time. Otherwise C is what the command asked for."]
    return "\n".join(lines) + "\n"


def merged_table(merged):
    """Where the kernel merges equal pages."""
    lines = ["## Merged by the kernel", "",
             "Python, worker with `--merge-memory`: photons and separate sandboxes both merged (KSM, 1000 pages every 20 ms), read when "
             "merging had settled. *Kept* is what the kernel keeps for each page that it looks at, 64 bytes, which is in no process's "
             "PSS: so saved of PSS, as everywhere here and as published, and of both. *Time* as above, but each turn after a pause in "
             "which merging has settled.", "",
             "| workload | increment MB, photons (kept) | separate (kept) | saved of PSS | published | | saved of PSS and kept | time, middle (worst) | |",
             "|---|---|---|---|---|---|---|---|---|"]
    for name, row in merged.items():
        step, both = row["pss"], row["all"]
        pair = [f"{mb(step[way])} ({mb(both[way] - step[way])})" for way in ("shared", "separate")]
        lines.append(f"| {name} | {pair[0]} | {pair[1]} | {percent(step['saved'])} | {percent(row['target'])} | {verdict(row['memory_pass'])} | "
                     f"{percent(both['saved'])} | {row['time_ratio']:.3f} ({row['time_ratio_worst']:.3f}) | {verdict(row['time_pass'])} |")
    lines += ["", "What merging costs: seconds until it has settled, with C photons that are held, and processor time of the kernel for it; "
              "time of C invocations that come when it has, beside that of photons of a function that declines to be merged.", "",
              "| workload | C | photons MB | separate MB | settled in s (processor s) | photons ms | not merged ms | separate ms |",
              "|---|---|---|---|---|---|---|---|"]
    for name, row in merged.items():
        for shared, separate, took in zip(row["memory"]["shared"], row["memory"]["separate"], row["times"]):
            lines.append(f"| {name} | {shared['c']} | {mb(shared['pss'])} | {mb(separate['pss'])} | {shared['settle_seconds']:.0f} "
                         f"({shared['settle_cpu_seconds']:.1f}) | {took['shared'] * 1e3:.1f} | {took['plain'] * 1e3:.1f} | {took['separate'] * 1e3:.1f} |")
    return "\n".join(lines) + "\n"


def latency_table(latency):
    """Of warm photons and of the Runtime API."""
    lines = ["## Latency, warm, of a handler that does nothing", "", "| what | p50 ms | p90 ms | p99 ms | asked of p50 | |", "|---|---|---|---|---|---|"]
    for language, ways in latency.items():
        for way, seen in ways.items():
            asked = 0.3 if language == "runtime_api" else 1.5
            what = {"http": f"{TITLES.get(language)}, signed HTTP request, one connection",
                    "socket": f"{TITLES.get(language)}, Unix socket", "probe": "Runtime API, one request from inside a sandbox"}[way]
            lines.append(f"| {what} | {seen['p50']:.3f} | {seen['p90']:.3f} | {seen['p99']:.3f} | {asked} | {verdict(seen['p50'] < asked)} |")
    return "\n".join(lines) + "\n"


def burst_table(bursts):
    """Cold starts."""
    lines = ["## Cold bursts", "", "| | invocations at once | C | sandboxes started | ⌈n/C⌉ | seconds | |", "|---|---|---|---|---|---|---|"]
    for language, one in bursts.items():
        lines.append(f"| {TITLES[language]} | {one['invocations']} | {one['concurrency']} | {one['sandboxes']} | {one['wanted']} | {one['seconds']:.1f} | {verdict(one['pass'])} |")
    return "\n".join(lines) + "\n"


def overload_table(overloads):
    """Open loop above capacity."""
    lines = ["## Overload", "", "Open loop, a handler that sleeps 100 ms, reserved concurrency 8. Asked: goodput at twice the capacity as at once, refusals within 10 ms (p99).", "",
             "| | offered / s | goodput / s | refused | else | good p50, p99 ms | refused p50, p99, most ms |", "|---|---|---|---|---|---|---|"]
    for language, one in overloads.items():
        for row in one["rows"]:
            good, refused = row["good_ms"], row["refused_ms"]
            lines.append(f"| {TITLES[language]} | {row['offered']:.0f} | {row['goodput']:.1f} | {row['refused']} | {row['other']} | "
                         + (f"{good['p50']:.1f}, {good['p99']:.1f}" if good else "–") + " | "
                         + (f"{refused['p50']:.2f}, {refused['p99']:.2f}, {refused['p100']:.2f}" if refused else "–") + " |")
        lines.append(f"| | | {verdict(one['flat'])} | | | | {verdict(one['refused_fast'])} |")
    return "\n".join(lines) + "\n"


def creation_table(creation):
    """Sandboxes of a small image."""
    lines = [f"## Sandboxes, {creation['at_once']} more at once", "",
             f"Busybox, one invocation in each, one sandbox of the function serves already, run directory in memory; from a sandbox's "
             f"start to its first `next`. Middle of {creation['rounds']}, ways taking turns. Asked: the median of bridged ones "
             f"{creation['target']} times faster when they are made ahead.", "",
             "| network | made ahead | p50 ms | most ms | times faster | |", "|---|---|---|---|---|---|"]
    for row in creation["rows"]:
        good = verdict(creation["pass"]) if (row["network"], row["ahead"]) == ("bridge", "prepared") else ""
        lines.append(f"| {row['network']} | {row['ahead']} | {row['p50_ms']:.0f} | {row['max_ms']:.0f} | {row['gain']:.2f} | {good} |")
    return "\n".join(lines) + "\n"


def made_table(data):
    """What made every line."""
    lines = ["## What made it", "", "| section | line | command | revision | at | machine |", "|---|---|---|---|---|---|"]
    made = data.get("made", {})
    have = {"memory": [f"{row['language']} {row['workload']}" for row in data.get("workloads", [])],
            **{section: list(data.get(section, {})) for section in ("merged", "latency", "burst", "overload")},
            "creation": ["busybox"] if data.get("creation") else []}
    for section, names in have.items():
        for name in names:
            run = made.get(section, {}).get(name, {})
            command = f"`{run['command']}`" if run.get("command") else "not recorded"
            lines.append(f"| {section} | {name} | {command} | {run.get('revision') or 'not recorded'} | {run.get('at', '–')} | {run.get('machine', '–')} |")
    return "\n".join(lines) + "\n"


def plot(rows, target):
    """Five workloads by two languages, both axes logarithmic."""
    pyplot.rcParams.update({"svg.hashsalt": "photons", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 8,
                            "axes.spines.top": False, "axes.spines.right": False})
    names = list(dict.fromkeys(row["workload"] for row in rows))
    languages = [one for one in TITLES if any(row["language"] == one for row in rows)]
    figure, axes = pyplot.subplots(len(languages), len(names), figsize=(2.3 * len(names) + 0.4, 2.2 * len(languages) + 0.7),
                                   sharex=True, sharey=True, squeeze=False)
    by_place = {(row["language"], row["workload"]): row for row in rows}
    handles = {}
    for down, language in enumerate(languages):
        for across, name in enumerate(names):
            place = axes[down][across]
            row = by_place.get((language, name))
            place.grid(True, which="major", color="#e4e4e4", linewidth=0.6)
            place.set_axisbelow(True)
            place.set_title(f"{TITLES[language]}: {name}" + (f", {percent(row['saved'])}" if row else ""), fontsize=8)
            for way, (label, colour, mark) in WAYS.items():
                points = row["memory"].get(way) if row else None
                if points:
                    (handles[label],) = place.loglog([one["c"] for one in points], [one["pss"] / 1e6 for one in points],
                                                     color=colour, marker=mark, markersize=3, linewidth=1.2, base=2)
    ticks = sorted({one["c"] for row in rows for one in row["memory"]["separate"]})
    for place in axes.flat:
        place.set_xscale("log", base=2)
        place.set_yscale("log", base=10)
        place.set_xticks(ticks, [str(one) for one in ticks])
        place.minorticks_off()
    figure.supxlabel("invocations at once (C)", fontsize=8)
    figure.supylabel("memory, MB (PSS)", fontsize=8)
    figure.legend(handles.values(), handles.keys(), loc="upper center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.savefig(target, metadata={"Date": None})
