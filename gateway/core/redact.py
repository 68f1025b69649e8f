"""Taking out of a text what must not be kept: credentials, addresses, numbers of persons and accounts.

Every pattern has a bounded reach and every candidate is looked at once, so that the time grows with the text
and not faster, whatever the text is. What has a checksum is checked. Sans-IO.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from typing import NamedTuple

_WORD = "A-Za-z0-9_-"

# Tokens that say by their form what they are. Each alternative begins with plain characters.
_TOKENS = rf"""
    sk-[{_WORD}]{{16,}}+                              # OpenAI, Anthropic, Penstock and others
  | (?:rk|sk|pk)_(?:live|test)_[A-Za-z0-9]{{16,}}+    # Stripe
  | (?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA)[A-Z0-9]{{16}}(?![A-Z0-9])
  | gh[pousr]_[A-Za-z0-9]{{30,}}+ | github_pat_[A-Za-z0-9_]{{22,}}+
  | glpat-[{_WORD}]{{20,}}+ | npm_[A-Za-z0-9]{{36,}}+ | pypi-[{_WORD}]{{50,}}+ | hf_[A-Za-z0-9]{{30,}}+
  | gsk_[A-Za-z0-9]{{20,}}+ | xai-[{_WORD}]{{20,}}+ | AIza[{_WORD}]{{35,}}+ | ya29\.[{_WORD}]{{20,}}+
  | xox[abeoprs]-[{_WORD}]{{10,}}+ | xapp-[{_WORD}]{{10,}}+ | whsec_[A-Za-z0-9+/=_-]{{16,}}+
  | SG\.[{_WORD}]{{16,}}+\.[{_WORD}]{{16,}}+ | hv[sbr]\.[{_WORD}]{{20,}}+ | do[opr]_v1_[a-f0-9]{{64}}
  | eyJ[{_WORD}]{{8,}}+\.[{_WORD}]{{8,}}+(?:\.[{_WORD}]*+){{1,3}}          # JWS and JWE in compact form
"""
_TOKEN_MARKS = (
    "sk-", "_live_", "_test_", "AKIA", "ASIA", "AGPA", "AIDA", "AROA", "ANPA", "ghp_", "gho_", "ghu_", "ghs_",
    "ghr_", "github_pat_", "glpat-", "npm_", "pypi-", "hf_", "gsk_", "xai-", "AIza", "ya29.", "xox", "xapp-",
    "whsec_", "SG.", "hvs.", "hvb.", "hvr.", "_v1_", "eyJ",
)  # fmt: skip

# A private key ends with its END line, or, where that is missing, with the text.
_PRIVATE = (
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[\s\S]*?-----END [A-Z0-9 ]{0,60}-----|[\s\S]*)"
)

_EMAIL = r"(?<![\w.%+'-])[\w.%+'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])"
_PHONE = (
    r"(?<![\w+.])(?:\+|00)[1-9]\d{0,2}(?:[ .-]{1,2}\d{1,4})?[ .-]{0,2}\(\d{1,4}\)(?:[ .-]{0,2}\d){2,8}(?!\d)"
    r"|(?<![\w+.])(?:\+|00)[1-9](?:[ .-]{0,2}\d){6,14}(?!\d)"
    r"|(?<![\w.-])(?:1[ .-])?\(?[2-9]\d{2}(?:\)[ ]?|[ .-])\d{3}[ .-]\d{4}(?![\w-])"
)
_CARD = (
    r"(?<!\d)(?:\d{13,19}"
    r"|\d{4}[ \xa0-]\d{4}[ \xa0-]\d{4}[ \xa0-]\d{1,4}(?:[ \xa0-]\d{3})?"
    r"|\d{4}[ \xa0-]\d{6}[ \xa0-]\d{4,5})(?!\d)"
)
_IBAN = r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}"
_IP = (
    r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"
    r"|(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"
)

# Characters of an IBAN by country (ISO 13616 registry).
_IBANS = {
    country: int(length)
    for length, countries in (
        ("15", "NO"), ("16", "BE"), ("18", "DK FI FO GL NL SD"), ("19", "MK SI"),
        ("20", "AT BA EE KZ LT LU MN XK"), ("21", "CH HR LI LV"),
        ("22", "BG BH CR DE GB GE IE ME RS VA"), ("23", "AE GI IL IQ OM SO TL"),
        ("24", "AD CZ ES MD PK RO SA SE SK TN VG"), ("25", "LY PT ST"), ("26", "IS TR"),
        ("27", "BI DJ FR GR IT MC MR SM"), ("28", "AL AZ BY CY DO GT HU LB NI PL SV"),
        ("29", "BR EG PS QA UA"), ("30", "JO KW MU YE"), ("31", "MT SC"), ("32", "LC"), ("33", "RU"),
    )
    for country in countries.split()
}  # fmt: skip


class Span(NamedTuple):
    """One find: characters from `start` to `end`."""

    start: int
    end: int
    kind: str


class _Rule(NamedTuple):
    """How a kind is found; without any of `marks` there is nothing. `check` gives the real end, or 0."""

    pattern: re.Pattern[str]
    marks: tuple[str, ...] = ()
    check: Callable[[str, int, int], int] | None = None


def _card(text: str, start: int, end: int) -> int:
    """Luhn's checksum (ISO/IEC 7812-1), and a first digit that issuers have."""
    digits = [int(c) for c in text[start:end] if c.isdecimal()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6) or len(set(digits)) == 1:
        return 0
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return end if (sum(digits[::-2]) + sum(doubled)) % 10 == 0 else 0


def _iban(text: str, start: int, end: int) -> int:
    """The length that its country has, and the checksum (ISO 13616): the remainder by 97 is 1."""
    length = _IBANS.get(text[start : start + 2].upper(), 0)
    kept = [at for at in range(start, end) if text[at].isalnum()][:length]
    if not length or len(kept) < length or text[kept[-1] + 1 : min(kept[-1] + 2, end)].isalnum():
        return 0
    letters = "".join(text[at] for at in kept).upper()
    number = "".join(str(int(c, 36)) for c in letters[4:] + letters[:4])
    return kept[-1] + 1 if int(number) % 97 == 1 else 0


def _phone(text: str, start: int, end: int) -> int:
    return end if 7 <= sum(c.isdecimal() for c in text[start:end]) <= 17 else 0


def _ip(text: str, start: int, end: int) -> int:
    """An address, and not the names between two colons of some programming language."""
    found = text[start:end]
    try:
        ip_address(found)
    except ValueError:
        return 0
    return end if "." in found or any(c.isdecimal() for c in found) or found.count(":") > 3 else 0


# Patterns of Unicode texts, except where only ASCII makes sense: \d would be digits of every script.
_RULES: dict[str, tuple[_Rule, ...]] = {
    "secret": (
        _Rule(re.compile(_PRIVATE), ("-----BEGIN ",)),
        _Rule(re.compile(rf"(?<![A-Za-z0-9])(?:{_TOKENS})", re.VERBOSE), _TOKEN_MARKS),
        _Rule(re.compile(r"(?<=://)[^\s/@:\"']{0,64}:[^\s/@\"']{1,256}(?=@)"), ("://",)),
        _Rule(
            re.compile(r"(?i:bearer|basic) [A-Za-z0-9._~+/=-]{16,}+"), ("earer ", "EARER ", "asic ", "ASIC ")
        ),
        _Rule(
            re.compile(r"(?i:aws_secret_access_key)[\"']?[ :=]{1,3}[\"']?[A-Za-z0-9/+=]{40}"),
            ("access_key", "ACCESS_KEY"),
        ),
    ),
    "email": (_Rule(re.compile(_EMAIL), ("@",)),),
    "phone": (_Rule(re.compile(_PHONE, re.ASCII), (), _phone),),
    "card": (_Rule(re.compile(_CARD, re.ASCII), (), _card),),
    "iban": (_Rule(re.compile(_IBAN, re.ASCII), (), _iban),),
    "ip": (_Rule(re.compile(_IP, re.ASCII), (".", ":"), _ip),),
}
KINDS = tuple(_RULES)


def finds(text: str, kinds: Sequence[str] = KINDS) -> list[Span]:
    """What is to be taken out, in order and without overlaps. Credentials are looked for in any case."""
    found: list[Span] = []
    for kind in dict.fromkeys(("secret", *kinds)):
        for rule in _RULES[kind]:
            if not rule.marks or any(mark in text for mark in rule.marks):
                found += [Span(start, end, kind) for start, end in _matches(rule, text)]
    found.sort(key=lambda span: (span.start, -span.end))
    apart: list[Span] = []
    for span in found:
        if apart and span.start < apart[-1].end:
            last = apart[-1]
            apart[-1] = Span(last.start, max(last.end, span.end), last.kind)
        else:
            apart.append(span)
    return apart


def _matches(rule: _Rule, text: str) -> Iterator[tuple[int, int]]:
    """Every find; where a candidate was none, the next one may begin inside it."""
    at = 0
    while (match := rule.pattern.search(text, at)) is not None:
        start, end = match.span()
        if rule.check is not None:
            end = rule.check(text, start, end)
        if end:
            yield start, end
        at = max(end, start + 1)


def redact(text: str, kinds: Sequence[str] = KINDS, most: int = 1 << 62) -> tuple[str, dict[str, int]]:
    """The text with every find replaced by its kind, `[email]`, and how many there were of each.

    At most `most` characters of `text` are kept. What stands behind them is only looked at, so that a find
    that reaches across the end is taken out as a whole.
    """
    kept: list[str] = []
    counts: dict[str, int] = {}
    at = 0
    for start, end, kind in finds(text, kinds):
        if start >= most:
            break
        kept += (text[at:start], f"[{kind}]")
        counts[kind] = counts.get(kind, 0) + 1
        at = end
    if at < most:
        kept.append(text[at:most])
    return "".join(kept), counts
