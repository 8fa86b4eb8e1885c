"""Text that others chose, for a terminal."""


def printable(text: str) -> str:
    """Return a text without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
