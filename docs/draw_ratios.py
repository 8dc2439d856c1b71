"""Draws docs/ratios.svg from the table in benchmarks/README.md: the rows against SDPA and FlexAttention, with all threads.

Run: python3 docs/draw_ratios.py [--check]   (--check: exit with 1 where the file on disk is another picture)
"""
import html
import math
import pathlib
import re
import sys

kRoot = pathlib.Path(__file__).resolve().parent.parent
kColors = {"SDPA": "#3b7a57", "FlexAttention": "#2f6db5"}
kLabels, kWidth, kRow, kTop = 400, 860, 20, 50
kLast = 32  # the end of the axis


def rows():
    """(name, other side, ratio) of each row of the table that is measured with the most threads."""
    table = re.findall(r"^\| (.+?) / (.+?) \| (\d+) \| .+? \| .+? \| ([\d.]+)x \|",
                       (kRoot / "benchmarks/README.md").read_text(), flags=re.M)
    threads = max(int(row[2]) for row in table)
    for name, other, row_threads, ratio in table:
        side = other.split()[0]
        if side in kColors and int(row_threads) == threads:
            yield name, side, float(ratio)


def x(ratio):
    return kLabels + 10 + math.log2(ratio) / math.log2(kLast) * (kWidth - kLabels - 70)


def picture():
    measured = list(rows())
    bottom = kTop + kRow * len(measured)
    style = 'font-family="sans-serif" font-size="12"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {kWidth} {bottom + 24}" {style}>',
             f'<rect width="{kWidth}" height="{bottom + 24}" fill="white"/>',
             '<text x="10" y="20" font-size="14">Time of the other side / time of attend (higher is better)</text>']
    for n, (side, color) in enumerate(kColors.items()):
        lines.append(f'<rect x="{kLabels + 10 + 110 * n}" y="28" width="12" height="12" fill="{color}"/>'
                     f'<text x="{kLabels + 27 + 110 * n}" y="38">{side}</text>')
    ratio = 1
    while ratio <= kLast:
        lines.append(f'<line x1="{x(ratio):.1f}" y1="{kTop}" x2="{x(ratio):.1f}" y2="{bottom}" stroke="#ccc"/>'
                     f'<text x="{x(ratio):.1f}" y="{bottom + 16}" text-anchor="middle" fill="#666">{ratio}x</text>')
        ratio *= 2
    for n, (name, side, ratio) in enumerate(measured):
        y = kTop + kRow * n
        begin, end = sorted((x(1), x(min(ratio, kLast))))
        lines.append(f'<text x="{kLabels}" y="{y + 14}" text-anchor="end">{html.escape(name)}</text>'
                     f'<rect x="{begin:.1f}" y="{y + 4}" width="{end - begin:.1f}" height="12" fill="{kColors[side]}"/>'
                     f'<text x="{end + 5:.1f}" y="{y + 14}">{ratio:.2f}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main():
    file = kRoot / "docs/ratios.svg"
    if sys.argv[1:] == ["--check"]:
        if file.read_text() != picture():
            print("docs/ratios.svg is not the picture of the table in benchmarks/README.md: run python3 docs/draw_ratios.py")
            return 1
    else:
        file.write_text(picture())
    return 0


if __name__ == "__main__":
    sys.exit(main())
