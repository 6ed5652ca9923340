"""Drawing of a figure as a reader sees it, and the overlaps among its labels."""

import io
import itertools


def render(figure):
    """Draw a figure as PNG, and check that `pyplot` does not know it."""
    with io.BytesIO() as file:
        figure.savefig(file, format="png")
        assert file.getbuffer().nbytes > 1000
    assert figure.canvas.manager is None  # which `pyplot` gives its figures
    return figure


def find_texts(figure):
    """Return all labels, titles and labels of ticks that are drawn."""
    texts = []
    for panel in figure.axes:
        if not panel.axison:
            continue
        texts += [panel.title, panel.xaxis.label, panel.yaxis.label]
        for axis, (low, high) in [(panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())]:
            shown = [tick for tick in axis.get_major_ticks() if tick.label1.get_visible()]
            texts += [tick.label1 for tick in shown if low <= tick.get_loc() <= high]
    return [text for text in texts if text.get_text() and text.get_visible()]


def find_overlaps(figure):
    """Return the pairs of texts that cover each other, and the texts that leave the figure."""
    texts = find_texts(figure)
    boxes = [text.get_window_extent() for text in texts]
    pairs = itertools.combinations(zip(texts, boxes, strict=True), 2)
    found = [(a.get_text(), b.get_text()) for (a, one), (b, two) in pairs if one.overlaps(two)]
    edge = figure.bbox
    outside = [
        text.get_text()
        for text, box in zip(texts, boxes, strict=True)
        if box.x0 < -1 or box.y0 < -1 or box.x1 > edge.x1 + 1 or box.y1 > edge.y1 + 1
    ]
    return found + outside
