"""
Results and how they are told: as a table on the terminal, as Markdown for docs/PERFORMANCE.md, as JSON.

A Row is one figure of one case: every run's number for every way. Its ratio is ours to two nginx, run by run, because
runs that follow each other meet the same machine; told are the median of the ratios and their spread.
"""

import json
import os
import platform
import statistics

import proc
from programs import fail
from ways import OURS, TWO

QUIET = 0.1  # of the machine's processor time
MARKS = "<!-- tables of ./dev bench --publish -->", "<!-- end of tables -->"


class Row:
    """values: {way: [number of each run]}; for tables of one program alone, the only way is OURS."""

    def __init__(self, part, case, figure, values):
        self.part, self.case, self.figure, self.values = part, case, figure, values

    def median(self, way):
        return statistics.median(self.values[way])

    @property
    def ratios(self):
        """Ours to two nginx, run by run; empty where there is nothing to compare."""
        pairs = zip(self.values.get(OURS, ()), self.values.get(TWO, ()))
        return [ours / theirs for ours, theirs in pairs if theirs]

    def as_dict(self):
        return {"part": self.part, "case": self.case, "figure": self.figure, "values": self.values, "ratios": self.ratios}


def number(value):
    """Three digits that count."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values):
    middle, low, high = number(statistics.median(values)), number(min(values)), number(max(values))
    return middle if low == high else f"{middle} ({low}–{high})"


def machine():
    """What the figures were made on, in a sentence."""
    cpu = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                cpu = " ".join(line.partition(":")[2].split())
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} × {cpu}, {memory:.0f} GiB, Linux {platform.release()} ({platform.machine()})"


class Report:
    """Collects rows and prints each part as soon as it is measured."""

    def __init__(self):
        self.rows = []
        self.notes = []
        self.machine = machine()

    def note(self, text):
        self.notes.append(text)
        print(f"  ({text})", flush=True)

    def check_quiet(self, what):
        """Between runs nothing works, so what does is somebody else's, and every way pays for it."""
        used = proc.busy()
        if used > QUIET:
            self.note(f"{what}: other programs used {100 * used:.0f} % of the machine before it began")

    def add(self, part, case, runs, figures=None):
        """runs: {way: [{figure: number}]}. A row for each figure, in the order of the first way's; per-process figures
        of different ways have different names, so they become rows of one way each."""
        names = figures or list(dict.fromkeys(name for way in runs.values() for one in way for name in one))
        for figure in names:
            values = {way: [one[figure] for one in many if figure in one] for way, many in runs.items()}
            row = Row(part, case, figure, {way: v for way, v in values.items() if v})
            self.rows.append(row)
            if ", " not in figure:
                self.show(row, [r for r in names if r.startswith(figure + ", ")], runs)

    @staticmethod
    def show(row, details, runs):
        """A line: each way's figure, with those of its processes where there are any, and the ratio."""
        cells = []
        for way, values in row.values.items():
            single = [f"{name.partition(', ')[2]} {number(statistics.median(one[name] for one in runs[way]))}"
                      for name in details if name in runs[way][0]]
            cells.append(f"{way} {spread(values)}" + (f" [{', '.join(single)}]" if single else ""))
        ratio = f"   ratio {spread(row.ratios)}" if row.ratios else ""
        print(f"  {row.case:<30}{row.figure:<19}{' | '.join(cells)}{ratio}", flush=True)

    def parts(self):
        return list(dict.fromkeys(row.part for row in self.rows))

    # ---- files ----

    def json(self, path):
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"machine": self.machine, "notes": self.notes, "rows": [row.as_dict() for row in self.rows]}, f,
                      indent=1, ensure_ascii=False)
            f.write("\n")

    def publish(self, page):
        """Puts the tables between the two marks of a page."""
        with open(page, encoding="utf-8") as f:
            before, first, rest = f.read().partition(MARKS[0])
        _, last, after = rest.partition(MARKS[1])
        if not first or not last:
            fail(f"{page} has no marks for the tables")
        with open(page, "w", encoding="utf-8") as f:
            f.write(f"{before}{first}\n{self.markdown()}{last}{after}")

    def markdown(self):
        """One table a part; the figures of single processes are left to the JSON."""
        lines = [f"Measured on {self.machine}. Each cell: median (lowest–highest) of the runs.", ""]
        for part in self.parts():
            rows = [row for row in self.rows if row.part == part and ", " not in row.figure]
            ways = list(dict.fromkeys(way for row in rows for way in row.values))
            compared = any(row.ratios for row in rows)
            head = ["case", "figure"] + ways + (["ratio to two nginx"] if compared else [])
            lines += [f"**{part}**", "", "| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
            for row in rows:
                cells = [row.case, row.figure] + [spread(row.values[w]) if w in row.values else "" for w in ways]
                if compared:
                    cells.append(f"**{spread(row.ratios)}**" if row.ratios else "")
                lines.append("| " + " | ".join(cells) + " |")
            lines.append("")
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"
