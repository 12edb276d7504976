"""Hit ratios by size, drawn for a terminal and as SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10

from penstock.cache.policy import EvictionPolicy
from penstock.cache.simulate import Curve

_NAMES = {
    EvictionPolicy.LRU: "LRU",
    EvictionPolicy.LFU: "LFU",
    EvictionPolicy.TTL: "TTL",
    EvictionPolicy.S3_FIFO: "S3-FIFO",
}
_MARKS = {EvictionPolicy.LRU: "o", EvictionPolicy.LFU: "x", EvictionPolicy.TTL: "+", EvictionPolicy.S3_FIFO: "#"}
_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 96, 56, 60
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 16px; font-weight: 600 }
  .small { font-size: 12px; fill: #57606a }
  .ground { fill: #ffffff } .grid { stroke: #d8dee4 } .axis { stroke: #57606a }
  .ceiling { stroke: #57606a; stroke-dasharray: 5 4 }
  .line { fill: none; stroke-width: 2.5; stroke-linejoin: round; stroke-linecap: round }
  .LRU { --c: #0969da } .LFU { --c: #bf5700 } .TTL { --c: #8250df } .S3-FIFO { --c: #1a7f37 }
  .line { stroke: var(--c) } circle { fill: var(--c) } .name { fill: var(--c); font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .ground { fill: #0d1117 } .grid { stroke: #30363d }
    .axis, .ceiling { stroke: #9198a1 }
    .LRU { --c: #58a6ff } .LFU { --c: #f0883e } .TTL { --c: #bc8cff } .S3-FIFO { --c: #3fb950 }
  }
"""


def name_of(policy: EvictionPolicy) -> str:
    """As it is shown to people."""
    return _NAMES[policy]


class Scales:
    """Where a size and a ratio are, from 0 to 1, on axes that hold all of the curves: sizes grow by factors."""

    def __init__(self, curves: Sequence[Curve], ceiling: float) -> None:
        self.sizes = sorted({size for curve in curves for size in curve.points})
        lowest = min(ratio for curve in curves for ratio in curve.points.values())
        self.bottom = int(lowest * 10) / 10
        self.top = min(1.0, int(ceiling * 10 + 1) / 10)

    def x(self, size: int) -> float:
        first, last = self.sizes[0], self.sizes[-1]
        return 0.5 if first == last else log10(size / first) / log10(last / first)

    def y(self, ratio: float) -> float:
        return (ratio - self.bottom) / (self.top - self.bottom)

    @property
    def steps(self) -> list[float]:
        """Ratios that have a line across."""
        tenths = round((self.top - self.bottom) * 10)
        return [self.bottom + step / 10 for step in range(0, tenths + 1, 1 if tenths <= 5 else 2)]


def text_plot(curves: Sequence[Curve], ceiling: float, width: int = 72, height: int = 14) -> str:
    """Lines of text: a mark for each point, the later curve's where several meet."""
    scales = Scales(curves, ceiling)
    inner = width - 8
    canvas = [[" "] * inner for _ in range(height + 1)]
    for column in range(0, inner, 2):
        canvas[height - round(scales.y(ceiling) * height)][column] = "-"
    for curve in curves:
        for size, ratio in curve.points.items():
            row, column = height - round(scales.y(ratio) * height), round(scales.x(size) * (inner - 1))
            canvas[row][column] = _MARKS[curve.policy]
    labels = {height - round(scales.y(step) * height): f"{step:>5.0%}" for step in scales.steps}
    lines = [f"{labels.get(row, ''):>5} |{''.join(cells).rstrip()}" for row, cells in enumerate(canvas)]
    lines.append(" " * 6 + "+" + "-" * inner)
    first, last = f"{scales.sizes[0]:,}", f"{scales.sizes[-1]:,}"
    middle = "entries (by factors)"
    lines.append(" " * 7 + first + middle.center(inner - len(first) - len(last)) + last)
    legend = [f"{_MARKS[curve.policy]} {name_of(curve.policy)}" for curve in curves]
    lines.append(" " * 7 + "   ".join([*legend, f"- ceiling {ceiling:.1%}"]))
    return "\n".join(lines)


def svg_plot(curves: Sequence[Curve], ceiling: float, title: str) -> str:
    """An SVG image that follows the reader's choice of a light or a dark theme."""
    scales = Scales(curves, ceiling)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<text class="title" x="{_LEFT}" y="28">{escape(title)}</text>',
        *_axes(scales),
        *_ceiling_line(scales, ceiling),
    ]
    for curve in curves:
        points = [(_x(scales, size), _y(scales, ratio)) for size, ratio in sorted(curve.points.items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points)
        parts.append(f'<g class="{name_of(curve.policy)}"><polyline class="line" points="{path}"/>{dots}</g>')
    parts += _names(curves, scales)
    return "\n".join([*parts, "</svg>", ""])


def _x(scales: Scales, size: int) -> float:
    return _LEFT + scales.x(size) * (_WIDTH - _LEFT - _RIGHT)


def _y(scales: Scales, ratio: float) -> float:
    return _HEIGHT - _BOTTOM - scales.y(ratio) * (_HEIGHT - _TOP - _BOTTOM)


def _axes(scales: Scales) -> list[str]:
    right, bottom, middle = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, (_TOP + _HEIGHT - _BOTTOM) / 2
    parts = []
    for step in scales.steps:
        y = _y(scales, step)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="small" x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{step:.0%}</text>')
    free = 0.0
    for size in scales.sizes:
        x = _x(scales, size)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        if x >= free:  # there is room for its number
            parts.append(f'<text class="small" x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{size:,}</text>')
            free = x + 9 * len(f"{size:,}")
    parts += [
        f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>',
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 14}" text-anchor="middle">entries in the cache</text>',
        f'<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">hit ratio</text>',
    ]
    return parts


def _ceiling_line(scales: Scales, ceiling: float) -> list[str]:
    y = _y(scales, ceiling)
    return [
        f'<line class="ceiling" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
        f'<text class="small" x="{_LEFT + 8}" y="{y - 6:.1f}">{ceiling:.1%} if nothing had to go</text>',
    ]


def _names(curves: Sequence[Curve], scales: Scales) -> list[str]:
    """Each beside the end of its line, moved down where two would meet."""
    ends = sorted((_y(scales, curve.points[max(curve.points)]), name_of(curve.policy)) for curve in curves)
    parts, free = [], 0.0
    for end, name in ends:
        y = max(end + 4, free)
        parts.append(f'<g class="{name}"><text class="name" x="{_WIDTH - _RIGHT + 10}" y="{y:.1f}">{name}</text></g>')
        free = y + 16
    return parts
