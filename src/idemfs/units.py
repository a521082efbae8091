"""Sizes and lengths of time as people write them, on the command line and in configuration files.

Every function here is pure, and raises ``ValueError`` with what was written and what would be right.
"""

from __future__ import annotations

SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
TEXT_SIZE_MAX = 40
"""Longer texts are neither sizes nor lengths of time."""
_UNITS: dict[str, int] = {
    **{unit.lower(): 1024**power for power, unit in enumerate(SIZE_UNITS)},
    **{unit[0].lower(): 1024**power for power, unit in enumerate(SIZE_UNITS) if power},
    **{unit: 1000**power for power, unit in enumerate(("kb", "mb", "gb", "tb", "pb", "eb"), start=1)},
}
_SECONDS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}


def parse_size(text: str) -> int:
    """Bytes of ``131072``, ``128KiB``, ``1.5 GiB`` (rounded down), ``4k`` (1024) or ``1 GB`` (1000 to the third)."""
    lowered = text.strip().lower()
    number = lowered.rstrip("bikmgtpe ")
    factor = _UNITS.get(lowered[len(number) :].strip() or "b")
    whole, _, fraction = number.partition(".")
    digits = whole + fraction
    if factor is None or len(text) > TEXT_SIZE_MAX or not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{text[:TEXT_SIZE_MAX]!r} is no size; write for example 131072, 128KiB or 1.5GiB")
    return int(digits) * factor // int(10 ** len(fraction))


def parse_duration(text: str) -> int:
    """Seconds of ``90``, ``30s``, ``15m``, ``6h``, ``7d`` or ``2w``."""
    number, unit = (text[:-1], text[-1]) if text[-1:].lower() in _SECONDS else (text, "s")
    if not (number.isascii() and number.isdigit()) or len(number) > TEXT_SIZE_MAX:
        raise ValueError(f"{text[:TEXT_SIZE_MAX]!r} is no length of time; write for example 30s, 15m, 6h, 7d or 2w")
    return int(number) * _SECONDS[unit.lower()]


def format_duration(seconds: int) -> str:
    """As ``parse_duration`` reads it, in the largest unit that says it in a whole number."""
    for unit, length in _SECONDS.items():
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return "0s"


def parse_count(text: str) -> int:
    """A whole number of at most nine digits."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise ValueError(f"{text[:TEXT_SIZE_MAX]!r} is no number; write for example 24")
    return int(text)
