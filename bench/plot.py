"""Draws the comparison as SVG: bars of requests a second for each way, at each number of connections. Colours follow the
reader's light or dark preference."""

from report import number
from ways import OURS, TWO

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f } .dim { fill: #57606a } .line { stroke: #d0d7de }
  .ours { fill: #0969da } .two { fill: #8c959f } .other { fill: #c6cbd1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .dim { fill: #9198a1 } .line { stroke: #3d444d }
    .ours { fill: #4493f8 } .two { fill: #7d8590 } .other { fill: #484f58 }
  }
"""
LEFT, WIDTH, BAR, GAP = 130, 720, 16, 26


def bars(rows, top):
    """SVG elements of the rows, one group of bars a case, and where they end."""
    out, y = [], top
    scale = (WIDTH - LEFT - 130) / max(row.median(way) for row in rows for way in row.values)
    for row in rows:
        out.append(f'<text x="10" y="{y + 12}" font-weight="600">{row.part}, {row.case}</text>')
        y += 20
        for way in sorted(row.values, key=lambda name: -row.median(name)):
            kind = "ours" if way == OURS else "two" if way == TWO else "other"
            middle, low, high = row.median(way), min(row.values[way]), max(row.values[way])
            length, center = middle * scale, y + BAR / 2
            out.append(f'<text class="dim" x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{way}</text>')
            out.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>')
            if high > low:
                out.append(f'<path class="line" d="M{LEFT + low * scale:.1f} {center}H{LEFT + high * scale:.1f}" '
                           'stroke-width="2"/>')
            out.append(f'<text x="{LEFT + max(length, high * scale) + 6:.1f}" y="{y + 12}">{number(middle)}</text>')
            y += BAR + 4
        y += GAP - 10
    return out, y


def write(path, report, figure="requests/s"):
    """One merged row a case."""
    merged = {}
    for row in report.rows:
        if row.figure != figure or row.part.startswith("scaling"):
            continue
        key = row.part, row.case
        if key in merged:
            merged[key].values = {**row.values, **merged[key].values}
        else:
            merged[key] = type(row)(row.part, row.case, figure, dict(row.values))
    if not merged:
        return
    body, height = bars(list(merged.values()), 58)
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
            f"<style>{STYLE}</style>",
            '<text x="10" y="20" font-weight="600">Requests a second, answers of 1 KiB: median, and the spread of the '
            'runs</text>', f'<text class="dim" x="10" y="38">{report.machine}</text>']
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(head + body + ["</svg>"]) + "\n")
