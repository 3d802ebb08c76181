"""Converts bytes to text by detecting the encoding of a file. Does not interpret the text.

Byte order marks and UTF-8 are certain, UTF-16 without a mark nearly so. Legacy encodings are guessed from the first
`SAMPLE_BYTES`. Western, Central European and Turkish ones are recognised by the letters that their languages use, with
Windows-1252 if several fit ("Müller" is the same in all). The others are left to charset-normalizer, which is reliable
from about 80 characters, but with fewer than 40 mistakes Greek, KOI8-R and EUC-JP for others. ISO-8859 encodings are
not distinguished from their Windows counterparts, nor are encodings with ASCII bytes only, such as ISO-2022-JP.
"""

from __future__ import annotations

import codecs
import io
import re
import threading
from collections import Counter
from itertools import pairwise

from charset_normalizer import from_bytes

SAMPLE_BYTES = 1 << 18
LETTERS_BYTES = 1 << 15
_BOMS = {  # UTF-32 before UTF-16, whose mark is its beginning
    codecs.BOM_UTF8: ("utf-8-sig", "UTF-8 with BOM"),
    codecs.BOM_UTF32_LE: ("utf-32", "UTF-32"),
    codecs.BOM_UTF32_BE: ("utf-32", "UTF-32"),
    codecs.BOM_UTF16_LE: ("utf-16", "UTF-16"),
    codecs.BOM_UTF16_BE: ("utf-16", "UTF-16"),
}
_TYPED = "‘’‚“”„–—…•«»¿¡°§©®™€£²´·ºª\xa0"
_WESTERN = ("àâæçèéêëîïôœùûüÿ", "äöüß", "áéíñóúü", "ãáâàçéêíõóôú", "àèéìíòóù", "åäöæøé", "áðéíóúýþæö")
_LATIN = {  # each string holds the letters of one language; the first encoding wins a tie
    "cp1252": _WESTERN,
    "cp1250": ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíľĺňóôŕšťúýž", "áéíóöőúüű", "ăâîşţ", "čćđšž"),
    "cp1254": ("âçğıİîöşûü",),
    "mac_roman": _WESTERN,
}
_OTHERS = {
    "cp1251": "Windows-1251",
    "cp1253": "Windows-1253",
    "koi8_r": "KOI8-R",
    "cp932": "Shift JIS",
    "euc_jp": "EUC-JP",
    "gb18030": "GB18030",
    "big5": "Big5",
    "cp949": "EUC-KR",
}
_reading = threading.local()


class _Source(io.BufferedReader):
    """Bytes for a decoder, with a count of those that were not UTF-8."""

    strays = 0

    # A text stream decodes bytes right after reading them, so the error handler knows which source they came from.
    def read1(self, size: int = -1, /) -> bytes:
        _reading.source = self
        return super().read1(size)

    def read(self, size: int | None = -1, /) -> bytes:
        _reading.source = self
        return super().read(size)


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)  # registered for decoding only
    _reading.source.strays += error.end - error.start
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("windows-1252", _as_windows_1252)


def open_text(stream: io.BufferedIOBase) -> tuple[io.TextIOWrapper, str]:
    """Open *stream* as text with unchanged line ends, in the encoding detected from its first bytes; name the encoding.

    No bytes are rejected: bytes in a UTF-8 file that are not UTF-8 are read as Windows-1252 (`stray_bytes` counts
    them), and bytes undefined in another encoding become U+FFFD. The stream need not be seekable; closing the text
    closes it.
    """
    source = _Source(stream, SAMPLE_BYTES)
    encoding, name = _encoding(source.peek(SAMPLE_BYTES))
    errors = "windows-1252" if name.startswith("UTF-8") else "replace"
    return io.TextIOWrapper(source, encoding, errors, newline=""), name


def stray_bytes(text: io.TextIOWrapper) -> int:
    """Count the bytes that *text*, from `open_text`, has read as Windows-1252 so far because they are not UTF-8."""
    return text.buffer.strays if isinstance(text.buffer, _Source) else 0


def _encoding(sample: bytes) -> tuple[str, str]:
    """Return the encoding of *sample*: Python's name and a readable name."""
    for mark, found in _BOMS.items():
        if sample.startswith(mark):
            return found
    decoded = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(sample, len(sample) < SAMPLE_BYTES)
    strays = len(re.findall("[\udc80-\udcff]", decoded))
    others = len(re.findall("[^\0-\x7f\udc80-\udcff]", decoded))
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if 9 * min(even, odd) < max(even, odd) and even + odd > len(sample) // (100 if strays else 4):
        return ("utf-16-le" if odd > even else "utf-16-be"), "UTF-16"
    if others > strays or not strays:  # legacy text is hardly ever UTF-8 by chance
        return "utf-8", "UTF-8"
    lines = _cut(sample, SAMPLE_BYTES).splitlines(keepends=True)
    return _legacy(_cut(b"".join(line for line in lines if not line.isascii()) or sample, LETTERS_BYTES))


def _cut(sample: bytes, size: int) -> bytes:
    """Cut *sample* to *size* without splitting a character: in no encoding does one end in space, comma or line end."""
    return sample if len(sample) < size else sample[: max(map(sample[:size].rfind, b"\n ,;\t")) + 1] or sample[:size]


def _legacy(sample: bytes) -> tuple[str, str]:
    """Guess a legacy encoding. Accented letters are isolated; other scripts form runs, left to charset-normalizer."""
    runs = re.findall(rb"[\x80-\xff]+", sample)
    usual = {encoding: _usual(sample, encoding) for encoding in _LATIN}
    encoding = max(usual, key=lambda name: usual[name])
    if sum(map(len, runs)) > 2 * len(runs) or usual[encoding] < 0.75:
        best = from_bytes(sample, cp_isolation=list(_OTHERS)).best()
        if best and best.encoding in _OTHERS:
            return best.encoding, _OTHERS[best.encoding]
    return encoding, "Mac Roman" if encoding == "mac_roman" else f"Windows-{encoding[2:]}"


def _usual(sample: bytes, encoding: str) -> float:
    """Return the largest share of non-ASCII letters in *sample* that one language explains, without inner capitals."""
    pairs = [pair for pair in pairwise(" " + sample.decode(encoding, "replace")) if not pair[1].isascii()]
    found = Counter("" if before.islower() and now.isupper() else now for before, now in pairs)
    return max(
        sum(count for letter, count in found.items() if letter and letter in letters + letters.upper() + _TYPED)
        for letters in _LATIN[encoding]
    ) / len(pairs)
