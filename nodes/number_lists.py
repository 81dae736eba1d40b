"""Lists of numbers that are typed as text."""
import re


def numbers(text: str, who: str, name: str, low: float, high: float, example: str) -> list[float]:
    """Those of a text like "1, 0.8 0.5"; none of an empty one. Raises ValueError for other words and for numbers beyond low..high. name: of the input that it came from."""
    words = [word for word in re.split(r"[\s,;]+", text) if word]
    try:
        found = [float(word) for word in words]
    except ValueError:
        found = [float("nan")]
    if not all(low <= n <= high for n in found):
        raise ValueError(f"{who} needs numbers from {low:g} to {high:g} with commas between them in {name!r}, such as {example}, got {text!r:.100}. Correct it, or leave it empty.")
    return found
