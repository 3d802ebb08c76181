from __future__ import annotations

import codecs
import gzip
import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_hub.preferences.files.text import SAMPLE_BYTES, open_text, stray_bytes

FRENCH = "Où est passée ma commande ? Le suivi n’a pas changé. Désolés : le colis a été retardé à cause de la neige."
GERMAN = "Schöne Grüße aus Köln! Die Lieferung wäre für gestern geplant gewesen; natürlich übernehmen wir die Kosten."
SPANISH = "¿Dónde está mi pedido? Debía llegar el miércoles, pero la página dice que está en camino. Mañana, señor."
POLISH = "Gdzie jest moje zamówienie? Przepraszamy za opóźnienie: paczka została wysłana na zły adres. Dziękujemy!"
HUNGARIAN = "Hol van a rendelésem? Elnézést kérünk a késésért: a csomagot rossz címre küldték. Köszönjük, kedves nő!"
TURKISH = "Siparişim nerede? Dün gelmesi gerekiyordu ama hâlâ ulaşmadı. Özür dileriz, lütfen adresinizi doğrulayın."
RUSSIAN = "Где мой заказ? Он должен был прийти вчера. Приносим извинения: посылка придёт только в пятницу. Спасибо!"
GREEK = "Πού είναι η παραγγελία μου; Έπρεπε να φτάσει χθες. Ζητούμε συγγνώμη: θα φτάσει την Παρασκευή."
JAPANESE = "私の注文はどこですか?昨日届くはずでしたが、まだ届いていません。荷物は金曜日に到着する予定です。"
CHINESE = "我的订单在哪里?昨天就应该到了,但是现在还没有收到。很抱歉让您久等了:包裹星期五才能送达。"
TAIWANESE = "我的訂單在哪裡?昨天就應該到了,但是現在還沒有收到。很抱歉讓您久等了:包裹星期五才能送達。"
KOREAN = "제 주문은 어디에 있나요? 어제 도착했어야 하는데 아직 오지 않았습니다. 금요일에 도착할 예정입니다."
BYTES = [b"\0", b"a", b"\n", b"\xe9", b"\xff", b"\xfe", b"\xd8"]


def read(data: bytes) -> tuple[str, str, int]:
    """Return the text of *data*, the encoding's name, and the count of stray bytes."""
    text, name = open_text(io.BytesIO(data))
    return text.read(), name, stray_bytes(text)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-8", "UTF-8"),
        ("utf-8-sig", "UTF-8 with BOM"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
    ],
)
@pytest.mark.parametrize("sentence", [FRENCH, CHINESE])
def test_unicode_is_known_with_and_without_a_mark(encoding: str, name: str, sentence: str) -> None:
    """All that Unicode is written in is read, and no line end is changed."""
    text = f"prompt,chosen,rejected\r\n{sentence},b\rc,d\n"
    assert read(text.encode(encoding)) == (text, name, 0)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE])
def test_the_other_order_of_bytes(mark: bytes) -> None:
    """A mark tells the order of the bytes."""
    encoding = "utf-16-be" if len(mark) == 2 else "utf-32-be"
    assert read(mark + FRENCH.encode(encoding))[0] == FRENCH


@pytest.mark.parametrize(
    ("sentence", "encoding", "name"),
    [
        (FRENCH, "cp1252", "Windows-1252"),
        (GERMAN, "cp1252", "Windows-1252"),
        (SPANISH, "cp1252", "Windows-1252"),
        ("It’s a naïve “café” – £5…", "cp1252", "Windows-1252"),
        ("Déjà vu, Müller?", "cp1252", "Windows-1252"),
        (FRENCH, "mac_roman", "Mac Roman"),
        (POLISH, "cp1250", "Windows-1250"),
        (HUNGARIAN, "cp1250", "Windows-1250"),
        (TURKISH, "cp1254", "Windows-1254"),
        (RUSSIAN, "cp1251", "Windows-1251"),
        (RUSSIAN, "koi8_r", "KOI8-R"),
        (GREEK, "cp1253", "Windows-1253"),
        (JAPANESE, "cp932", "Shift JIS"),
        (JAPANESE, "euc_jp", "EUC-JP"),
        (CHINESE, "gb18030", "GB18030"),
        (TAIWANESE, "big5", "Big5"),
        (KOREAN, "cp949", "EUC-KR"),
    ],
)
@pytest.mark.parametrize("rows", [1, 4000])
def test_legacy_encodings_are_told_from_a_sentence(sentence: str, encoding: str, name: str, rows: int) -> None:
    """A sentence or two are enough, and a sample that ends inside a character does no harm."""
    text = "prompt,chosen,rejected\n" + f"{sentence}\n" * rows
    assert read(text.encode(encoding)) == (text, name, 0)


def test_a_stray_byte_does_not_sink_a_file_of_utf8() -> None:
    """What is no UTF-8 is read as Windows-1252, wherever it stands, and counted."""
    for filler in ("é" * 3, "é" * SAMPLE_BYTES):
        assert read(filler.encode() * 3 + b"\x93hi\x94 \x81") == (filler * 3 + "“hi” \ufffd", "UTF-8", 3)


def test_two_files_at_once_are_counted_apart() -> None:
    """Each stream knows its own stray bytes."""
    filler = "é".encode() * SAMPLE_BYTES
    (one, _), (two, _) = open_text(io.BytesIO(filler + b"\xe9\n\n")), open_text(io.BytesIO(filler + b"\n\xe9\xe9 \n"))
    for line, other in zip(one, two, strict=True):
        assert line.endswith("\n")
        assert other.endswith("\n")
    assert (stray_bytes(one), stray_bytes(two)) == (1, 2)


def test_streams_that_cannot_be_rewound() -> None:
    """A pipe and a gzipped file are read from where they are."""
    reading, writing = os.pipe()
    os.write(writing, "a\r\né".encode())
    os.close(writing)
    with open_text(os.fdopen(reading, "rb"))[0] as text:
        assert list(text) == ["a\r\n", "é"]
    with open_text(gzip.open(io.BytesIO(gzip.compress(FRENCH.encode("cp1252")))))[0] as text:
        assert text.read() == FRENCH


def test_a_nul_or_two_are_not_utf16() -> None:
    """NULs in UTF-8 are characters like others."""
    text = "a\0b,c\n" + "\0" * 9 + FRENCH
    assert read(text.encode()) == (text, "UTF-8", 0)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.lists(st.sampled_from(BYTES)).map(b"".join))
def test_no_bytes_are_refused(data: bytes) -> None:
    """Any bytes at all give some text."""
    text, name, _ = read(data)
    assert isinstance(text, str)
    assert name
