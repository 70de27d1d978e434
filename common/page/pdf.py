"""A shift report as a PDF, made by a process of its own.

``python -m common.page.pdf REPORT.json FILE.pdf``; the JSON is a ``common.page.report.Report``.
"""

from __future__ import annotations

import html
import json
import sys
from pathlib import Path
from typing import Any

from reportlab.graphics.shapes import Drawing, Rect, String
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer

from common.expressions import COLOURS
from common.page.ribbon import OFFLINE, UNASSESSED

LATIN, CHINESE = "Helvetica", "STSong-Light"
_WIDTH = A4[0] - 36 * mm
_HIGH = 16 * mm


def write(report: dict[str, Any], path: Path) -> None:
    """Write a report, as its JSON has it."""
    pdfmetrics.registerFont(UnicodeCIDFont(CHINESE))
    document = SimpleDocTemplate(
        str(path), pagesize=A4, leftMargin=18 * mm, rightMargin=18 * mm, topMargin=16 * mm, bottomMargin=16 * mm,
        title=f"Mien – {report['title']}", author="Mien",
    )  # fmt: skip
    story: list[Flowable] = [
        _text(report["title"], 20, gap=4),
        _text(report["period"], 11),
        _text(report["made"], 9, "#555555", gap=8),
    ]
    for part in report["parts"]:
        story += [KeepTogether(_part(report, part)), Spacer(1, 5 * mm)]
    if not report["parts"]:
        story.append(_text(report["nobody"], 11))
    if report["loose"]:
        story += [_text(report["heads"]["loose"], 14, gap=1), *_list(report["heads"]["notes"], report["loose"])]
        story.append(Spacer(1, 5 * mm))
    story.append(_text(report["remark"], 9, "#555555"))
    document.build(story)


def _part(report: dict[str, Any], part: dict[str, Any]) -> list[Flowable]:
    flow: list[Flowable] = [_text(part["name"], 14, gap=1), _text(part["coverage"], 10, gap=3), _ribbon(report, part)]
    shares = " &nbsp; ".join(
        f'<font name="ZapfDingbats" color="{_colour(label)}">n</font> {_marked(word)} {share:.0%}'
        for label, word, share in part["shares"]
    )
    flow.append(Paragraph(shares, _style(9, "#000000", 3)))
    for head in ("episodes", "notes"):
        if part[head]:
            flow += _list(report["heads"][head], part[head])
    return flow


def _list(head: str, lines: list[str]) -> list[Flowable]:
    return [_text(head, 11, gap=1), *(_text(line, 9) for line in lines)]


def _ribbon(report: dict[str, Any], part: dict[str, Any]) -> Drawing:
    drawing = Drawing(_WIDTH, _HIGH + 6 * mm)
    begin, whole = report["begin"], report["end"] - report["begin"]
    base = 5 * mm
    drawing.add(Rect(0, base, _WIDTH, _HIGH, fillColor=HexColor("#EEF0F2"), strokeColor=None))
    for first, last, kind in part["runs"]:
        x, width = (first - begin) / whole * _WIDTH, max(0.3, (last - first) / whole * _WIDTH)
        colour, high = {UNASSESSED: ("#868E96", _HIGH / 4), OFFLINE: ("#C9CDD2", _HIGH)}.get(kind, ("", _HIGH))
        if kind in COLOURS:
            colour = _colour(kind)
        if colour:
            drawing.add(Rect(x, base, width, high, fillColor=HexColor(colour), strokeColor=None))
    for at, word in report["axis"]:
        anchor = "start" if at < 0.03 else "end" if at > 0.97 else "middle"
        drawing.add(
            String(
                at * _WIDTH, 1 * mm, word, fontName=LATIN, fontSize=8, textAnchor=anchor, fillColor=HexColor("#555555")
            )
        )
    return drawing


def _text(text: str, size: float, colour: str = "#000000", *, gap: float = 0) -> Paragraph:
    return Paragraph(_marked(text).replace("\n", "<br/>"), _style(size, colour, gap))


def _style(size: float, colour: str, gap: float) -> ParagraphStyle:
    return ParagraphStyle(
        "mien", fontName=LATIN, fontSize=size, leading=size * 1.35, textColor=HexColor(colour), spaceAfter=gap * mm / 2
    )


def _marked(text: str) -> str:
    """Return a text with what Helvetica has no letters for set in the Chinese font, which every reader brings."""
    parts: list[tuple[bool, str]] = []
    for letter in text:
        latin = len(letter.encode("cp1252", "ignore")) == 1
        if parts and parts[-1][0] == latin:
            parts[-1] = (latin, parts[-1][1] + letter)
        else:
            parts.append((latin, letter))
    return "".join(
        html.escape(run) if latin else f'<font name="{CHINESE}">{html.escape(run)}</font>' for latin, run in parts
    )


def _colour(label: str) -> str:
    return "#{:02X}{:02X}{:02X}".format(*COLOURS[label])


def main(argv: list[str]) -> int:
    """Read the report, write the file; return the exit code."""
    source, target = argv
    try:
        write(json.loads(Path(source).read_text(encoding="utf-8")), Path(target))
    except OSError as error:
        print(f"the PDF cannot be written: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"bytes": Path(target).stat().st_size}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
