"""Sizes, durations, numbers and ages, read and written as docker's command line does.

Each `parse_x` raises ValueError with docker's sentence; a size is in bytes, a duration in
nanoseconds, processors in billionths. `re`, `fractions` and `datetime` are not used: every start of
the command line imports this file.
"""

from __future__ import annotations

import time

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_DURATION = {"ns": 1, "us": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def parse_bool(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_int(text: str) -> int:
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    value = int(text)
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": value out of range')
    return value


def parse_cpus(text: str) -> int:
    """Processors, in billionths of one."""
    sign = -1 if text.startswith("-") else 1
    whole, _, part = text.lstrip("+-").partition(".")
    if not (whole + part).isascii() or not (whole + part).isdigit():
        raise ValueError(f"failed to parse {text} as a rational number")
    if len(part.rstrip("0")) > 9:
        raise ValueError("value is too precise")
    return sign * (int(whole or "0") * 10**9 + int(part[:9].ljust(9, "0")))


def parse_duration(text: str) -> int:
    """`1m30s`, `500ms`, `1.5h`, in nanoseconds."""
    rest = text.lstrip("+-")
    total = 0.0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    while rest and rest != "0":
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("nuµmsh"))]
        unit = unit if unit in _DURATION else unit[:2] if unit[:2] in _DURATION else unit[:1]
        if not number.replace(".", "", 1).isdigit() or unit not in _DURATION:
            raise ValueError(f'time: invalid duration "{text}"')
        total += float(number) * _DURATION[unit]
        rest = rest[len(unit) :]
    return int(-total if text.startswith("-") else total)


def decimal_size(size: float, precision: int = 4) -> str:
    """`1.07MB`: four digits, powers of 1000."""
    return _scaled(size, 1000.0, ("B", "kB", "MB", "GB", "TB", "PB", "EB"), precision)


def binary_size(size: float) -> str:
    """`792KiB`: four digits, powers of 1024."""
    return _scaled(size, 1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), 4)


def _scaled(size: float, base: float, units: tuple[str, ...], precision: int) -> str:
    at = 0
    while size >= base and at < len(units) - 1:
        size /= base
        at += 1
    return f"{size:.{precision}g}{units[at]}"


def age(seconds: float) -> str:
    """`5 seconds`, `About a minute`, `3 weeks`: how long something is ago."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    for limit, divisor, name in ((48, 1, "hour"), (336, 24, "day"), (1440, 168, "week")):
        if hours < limit:
            return "About an hour" if hours == 1 else f"{hours // divisor} {name}s"
    if hours < 17520:
        return f"{hours // 720} months"
    return f"{int(seconds / 31536000)} years"


def ago(created: int) -> str:
    """How long a moment in unix seconds lies back."""
    return age(time.time() - created) + " ago"


def zoned_time(created: int) -> str:
    """`2026-11-23 03:33:26 +0000 UTC`, as templates print a moment."""
    local = time.localtime(created)
    return time.strftime("%Y-%m-%d %H:%M:%S %z ", local) + (local.tm_zone or "UTC")


def stdcopy_time(seconds: int, nanoseconds: int) -> str:
    """`2026-11-23T03:34:52.323635101Z` with the local zone, as `events` prints a moment."""
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + f".{nanoseconds:09d}{zone}"
