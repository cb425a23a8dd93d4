"""Bars in SVG, readable on white and on black. Not here: what they stand for."""

from html import escape

WIDTH, NAMES, FIGURES, ROW, BAR, TOP = 860, 340, 190, 26, 16, 44

STYLE = """
text { font: 13px sans-serif; fill: #1f2328 }
.title { font-weight: bold }
.ours { fill: #b7410e }
.theirs { fill: #6e7781 }
.spread { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .ours { fill: #e5743f }
  .theirs { fill: #8b949e }
  .spread { stroke: #e6edf3 }
}
"""


def bars(title, rows):
    """Of each row the name, its class in STYLE, and the least value, the median and the most: a bar as long as the median and
    a line from the least to the most, all on one scale from zero."""
    most = max(row[4] for row in rows)
    scale = (WIDTH - NAMES - FIGURES) / most
    height = TOP + ROW * len(rows) + 8
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="{NAMES}" y="24">{escape(title)}</text>',
    ]
    for at, (name, kind, least, median, highest) in enumerate(rows):
        y = TOP + ROW * at
        middle, text = y + BAR / 2, y + BAR - 3
        end = NAMES + highest * scale + 8
        out += [
            f'<text x="{NAMES - 8}" y="{text}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{NAMES}" y="{y}" width="{median * scale:.1f}" height="{BAR}"/>',
            f'<line class="spread" x1="{NAMES + least * scale:.1f}" x2="{NAMES + highest * scale:.1f}" y1="{middle}" y2="{middle}"/>',
            f'<text x="{end:.1f}" y="{text}">{median:,.0f} ({least:,.0f} to {highest:,.0f})</text>',
        ]
    return "\n".join(out + ["</svg>", ""])
