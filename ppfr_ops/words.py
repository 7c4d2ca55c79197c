"""Numbers in sentences."""


def counted(count: int, one: str, many: str = "") -> str:
    """``1 photograph``, ``2 photographs``.

    Args:
        many: the plural, where it is not the singular and an s.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def rate(value: float, what: str) -> str:
    """So many a second, with a digit after the point where there are few."""
    return f"{value:,.0f} {what}/s" if value >= 10 else f"{value:.1f} {what}/s"
