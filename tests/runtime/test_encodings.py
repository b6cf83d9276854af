"""Texts of one byte a letter are read with the letters that they were written with."""

from __future__ import annotations

import pytest

from allmem_runtime.text.encodings import Survey

WESTERN, CENTRAL = "cp1252", "cp1250"
TEXTS = (
    (WESTERN, "Über den Flüssen stand die Mühle, naïve façade. Ein längerer Satz, der reicht."),
    (WESTERN, "Die Schlüssel hängen im Flur, größer als die Straße schön."),
    (WESTERN, "Les clés étaient derrière l’horloge, où personne ne les avait cherchées. Ça va."),
    (WESTERN, "El niño pequeño comió en la mañana; ¿dónde está la llave? ¡Qué día! 3 m³, 1º."),
    (WESTERN, "A chave está pendurada no corredor, atrás do relógio; não há ninguém, coração."),
    (WESTERN, "Nyckeln hänger i hallen bakom klockan, där ingen sökte på många år."),
    (CENTRAL, "Klucz wisi w korytarzu za zegarem, gdzie nikt go nie szukał; źdźbło, żółć, świeć."),
    (CENTRAL, "Příliš žluťoučký kůň úpěl ďábelské ódy; klíč visí na chodbě."),
    (CENTRAL, "A kulcs a folyosón lóg az óra mögött, ahol évek óta nem kereste; őrült tűz."),
    (CENTRAL, "Cheia atârnă pe hol în spatele ceasului, nimeni n-a căutat-o; ţară şi şte."),
    ("cp1254", "Anahtar koridorda saatin arkasında asılı duruyor; ışık, şiir, ağaç, gül."),
)


@pytest.mark.parametrize(("encoding", "text"), TEXTS, ids=lambda value: value[:9])
def test_european_text_keeps_its_letters(encoding: str, text: str) -> None:
    survey = Survey()
    survey.push(f"{text}\n".encode(encoding) * 20)
    assert f"{text}\n".encode(encoding).decode(survey.encoding()) == f"{text}\n"
