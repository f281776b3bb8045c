"""Grids of pictures with titles."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN = 12  # px
INK, PAPER = (30, 30, 30), (255, 255, 255)


def enlarge(picture: Image.Image, size: tuple[int, int], *, smooth: bool = False) -> Image.Image:
    """Bring a map to a photo's size (width, height); tokens stay visible as squares unless ``smooth``."""
    return picture.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)


def draw_grid(
    rows: Sequence[Sequence[Image.Image | None]], titles: Sequence[str] = (), captions: Sequence[str] = ()
) -> Image.Image:
    """Lay pictures out in rows and columns on white.

    Args:
        rows: pictures; None leaves a cell empty. A row is as high as its highest picture.
        titles: one above each column.
        captions: one above each row, from its left edge.

    Returns:
        the whole, in RGB.
    """
    columns = max(len(row) for row in rows)
    widths = [max((row[i].width for row in rows if i < len(row) and row[i]), default=0) for i in range(columns)]
    heights = [max((picture.height for picture in row if picture), default=0) for row in rows]
    font = ImageFont.load_default(size=max(14, round(max(widths) / 18)))
    line = sum(font.getmetrics()) + 6
    top, above = (line if titles else 0), (line if captions else 0)
    size = (
        sum(widths) + MARGIN * (columns + 1),
        top + sum(heights) + len(rows) * (MARGIN + above) + MARGIN,
    )
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    lefts = [MARGIN + sum(widths[:i]) + i * MARGIN for i in range(columns)]
    for left, width, title in zip(lefts, widths, titles, strict=False):
        text = fit_text(title, font, width)
        draw.text((left + (width - font.getlength(text)) / 2, MARGIN), text, INK, font)
    y = MARGIN + top
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        if captions:
            draw.text((MARGIN, y), fit_text(captions[number], font, size[0] - 2 * MARGIN), INK, font)
        y += above
        for left, width, picture in zip(lefts, widths, row, strict=False):
            if picture:
                sheet.paste(picture, (left + (width - picture.width) // 2, y))
        y += height + MARGIN
    return sheet


def fit_text(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Cut a text in its middle so that it is at most ``width`` px long."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = text[: -(-kept // 2)] + "…" + text[len(text) - kept // 2 :]
        if font.getlength(short) <= width:
            return short
    return "…"
