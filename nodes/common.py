"""Small things that several node modules say in the same words."""


def expert(widget):
    """Folds an input away under the node's advanced section, and lets graphs leave it out; hosts before 0.30 ignore `advanced`."""
    widget.optional = True
    widget.extra_dict = {**(getattr(widget, "extra_dict", None) or {}), "advanced": True}
    return widget


def frame_count_error(frames: int | None, who: str) -> str | None:
    """The sentence for a clip of fewer than two frames; None when frames is fine or comes from a link."""
    if frames is None or frames >= 2:
        return None
    return f"{who} makes a clip and needs at least 2 frames, got {frames}. Raise 'frames'; 8 is a good start, 16 the usual length."
