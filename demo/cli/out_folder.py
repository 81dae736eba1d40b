"""Can the results be written where they are wanted? Asked before the server starts."""
import tempfile
from pathlib import Path


def complaint(folder: Path) -> str | None:
    """What is wrong with the folder, as the rest of a sentence; None: it can be written.

    It is tried, because permission bits do not tell: root ignores them, and a file system may be read-only. What is made for that is taken away again.
    """
    made = []
    try:
        for place in reversed((folder, *folder.parents)):
            if place.exists() and not place.is_dir():
                return "is a file" if place == folder else f"lies below {str(place)!r}, which is a file"
            if not place.exists():
                place.mkdir()
                made.append(place)
        with tempfile.NamedTemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    finally:
        for place in reversed(made):
            place.rmdir()
