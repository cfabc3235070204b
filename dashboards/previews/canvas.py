"""A canvas that is measured in pixels from its upper left corner, on which matplotlib draws."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font, LoadFlags
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from dashboards.previews.colours import Theme

_DPI = 100
_MISSING = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Where it ends on the right."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Where it ends below."""
        return self.y + self.height

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return self.x + self.width / 2, self.y + self.height / 2

    def without(self, *, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> Box:
        """Return what is left when margins are cut off."""
        return Box(self.x + left, self.y + top, self.width - left - right, self.height - top - bottom)


@dataclass(frozen=True)
class Font:
    """How large, in pixels, and which of DejaVu's faces."""

    size: float = 12
    bold: bool = False
    mono: bool = False

    @property
    def properties(self) -> FontProperties:
        """The font as matplotlib has it."""
        family = "DejaVu Sans Mono" if self.mono else "DejaVu Sans"
        return FontProperties(family=family, weight="bold" if self.bold else "normal", size=self.size * 72 / _DPI)


SMALL = Font(11)


class Canvas:
    """One picture while it is drawn."""

    def __init__(self, width: int, height: int, theme: Theme) -> None:
        """Begin with nothing but the theme's ground."""
        self.width, self.height, self.theme = width, height, theme
        self.words: list[str] = []
        """All that has been written, for those who cannot look."""
        # The user's own settings of matplotlib must not change what is drawn.
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            self._figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=theme.ground)
            FigureCanvasAgg(self._figure)
            self._ground = self._figure.add_axes((0, 0, 1, 1))
        self._ground.set_axis_off()
        self._ground.set_xlim(0, width)
        self._ground.set_ylim(height, 0)

    def axes(self, box: Box) -> Axes:
        """Return axes that fill a box, without frame, ticks or labels."""
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            made = self._figure.add_axes(
                (
                    box.x / self.width,
                    1 - box.bottom / self.height,
                    max(box.width, 1) / self.width,
                    max(box.height, 1) / self.height,
                )
            )
        made.set_facecolor("none")
        for spine in made.spines.values():
            spine.set_visible(False)
        made.set_xticks([])
        made.set_yticks([])
        made.margins(0)
        return made

    def rectangle(self, box: Box, fill: str, *, edge: str = "none", rounded: bool = False, alpha: float = 1) -> None:
        """Fill a box."""
        if rounded:
            style = "round,pad=0,rounding_size=3"
            patch = FancyBboxPatch(
                (box.x, box.y), box.width, box.height, style, facecolor=fill, edgecolor=edge, linewidth=0.72
            )
            self._ground.add_patch(patch)
        else:
            plain = Rectangle((box.x, box.y), box.width, box.height, facecolor=fill, edgecolor=edge, linewidth=0.72)
            plain.set_alpha(alpha)
            self._ground.add_patch(plain)

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: str, width: float = 1) -> None:
        """Draw a straight line."""
        self._ground.plot(
            [start[0], end[0]], [start[1], end[1]], color=colour, linewidth=width * 72 / _DPI, solid_capstyle="butt"
        )

    def diamond(self, at: tuple[float, float], colour: str) -> None:
        """Draw a small point."""
        # Above the axes of what it belongs to.
        self._figure.add_artist(
            Line2D([at[0] / self.width], [1 - at[1] / self.height], marker="D", markersize=3.2, color=colour, zorder=3)
        )

    def text(
        self,
        at: tuple[float, float],
        words: str,
        font: Font = SMALL,
        colour: str | None = None,
        *,
        across: str = "left",
        within: float | None = None,
    ) -> float:
        """Write one line with its middle at this height, cut to a width; return how wide it became."""
        words = drawable(words, font)
        if within is not None:
            words = self.cut(words, font, within)
        self.words.append(words)
        self._ground.text(
            *at,
            words,
            fontproperties=font.properties,
            color=colour or self.theme.text,
            ha=across,
            va="center_baseline",
            # A dollar is a dollar.
            parse_math=False,
        )
        return self.measure(words, font)

    def measure(self, words: str, font: Font) -> float:
        """Return how wide words are."""
        return _measured(words, font)

    def cut(self, words: str, font: Font, width: float) -> str:
        """Return words, and an ellipsis in the place of those that find no room."""
        if self.measure(words, font) <= width:
            return words
        low, high = 0, len(words)
        while low < high:
            middle = (low + high + 1) // 2
            if self.measure(words[:middle].rstrip() + "…", font) <= width:
                low = middle
            else:
                high = middle - 1
        return words[:low].rstrip() + "…"

    def wrapped(self, words: str, font: Font, width: float) -> Iterator[str]:
        """Yield the lines that words take; a word that is longer than a line is broken."""
        line = ""
        for word in drawable(words, font).split(" "):
            rest = word
            while rest:
                longer = f"{line} {rest}" if line else rest
                if self.measure(longer, font) <= width:
                    line, rest = longer, ""
                elif line:
                    yield line
                    line = ""
                else:
                    fitting = max(1, len(self.cut(rest, font, width)) - 1)
                    yield rest[:fitting]
                    rest = rest[fitting:]
        yield line

    def png(self) -> bytes:
        """Return the picture; the same drawing gives the same bytes."""
        drawn = io.BytesIO()
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            self._figure.savefig(drawn, format="png", dpi=_DPI, metadata={"Software": None})
        made = io.BytesIO()
        with Image.open(drawn) as picture:
            # 256 colours of its own are enough for a page, and a third of the bytes.
            few = picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
            few.save(made, "png", optimize=True)
        return made.getvalue()


def drawable(words: str, font: Font) -> str:
    """Return words with a mark in the place of what the font has no glyph for."""
    there = _glyphs(font.bold, font.mono)
    return "".join(one if ord(one) in there else _MISSING for one in words.replace("\t", "    "))


@cache
def _glyphs(bold: bool, mono: bool) -> frozenset[int]:
    return frozenset(_face(Font(12, bold, mono)).get_charmap())


@cache
def _measured(words: str, font: Font) -> float:
    face = _face(font)
    face.set_size(font.size * 72 / _DPI, _DPI)
    # As matplotlib sets text where it is not told otherwise.
    face.set_text(words, flags=LoadFlags.DEFAULT)
    width, _ = face.get_width_height()
    # In 64ths of a pixel.
    return width / 64


def _face(font: Font) -> FT2Font:
    return get_font(findfont(font.properties))


def evenly(box: Box, count: int) -> Sequence[Box]:
    """Return a box cut into columns of one width."""
    each = box.width / count
    return [Box(box.x + number * each, box.y, each, box.height) for number in range(count)]
