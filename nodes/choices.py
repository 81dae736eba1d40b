"""Choices that come through a link: the host compares only typed ones with the list."""

SHOWN = 20  # names in an error


def known(choice, choices, who: str, what: str) -> str:
    """`choice` itself. Raises ValueError unless it is one of `choices`. what: they are, e.g. "file in models/loras"."""
    choices = list(choices)
    if isinstance(choice, str) and choice in choices:
        return choice
    more = f" and {len(choices) - SHOWN} more" if len(choices) > SHOWN else ""
    advice = f"Choose one of: {', '.join(choices[:SHOWN])}{more}." if choices else "There is none: put one there and press R."
    raise ValueError(f"{who} knows no {what} of the name {choice!r:.100}. {advice}")
