"""Why a rule holds a study, in plain words; a part of `explain`.

Imports explanation. Bahasa Indonesia first, English second. Changes when a rule gives a new reason.
"""

from __future__ import annotations

from interface.explanation import Explanation

RULES: dict[str, Explanation] = {
    "rewrite-failed": Explanation(
        "Perubahan yang diminta sebuah aturan tidak dapat dilakukan pada citra ini.",
        "Lihat sebabnya dengan `show`, coba dengan `rules test`, perbaiki aturan atau citranya, lalu `retry`.",
        "A change that a rule asks for cannot be made to these images.",
        "See the cause with `show`, try it with `rules test`, correct the rule or the images, then `retry`.",
        "IT",
    ),
    "source-empty": Explanation(
        "Aturan mengambil nilai dari atribut atau tabel yang kosong untuk citra ini.",
        "Lengkapi di modalitas atau di tabel, lalu kirim ulang atau `retry`.",
        "A rule takes a value from an attribute or table that has none for these images.",
        "Fill it in at the modality or in the table, then send again or `retry`.",
        "radiographer",
    ),
    "may-show-patient": Explanation(
        "Citra ini mungkin menampilkan identitas pasien di gambarnya, jadi tidak dikirim sebagai anonim.",
        "Tutup areanya (`mask`) atau terima (`accept burned-in`) dalam aturan, lalu kirim lagi.",
        "These images may show the patient's identity in their pixels, so they are not sent as de-identified.",
        "Mask the region (`mask`) or accept it (`accept burned-in`) in the rule, then send again.",
        "IT",
    ),
    "held-by-rule": Explanation(
        "Sebuah aturan menahan studi ini.", "Periksa alasannya dengan `show`, lalu `retry` bila boleh dikirim.",
        "A rule holds this study.", "See its reason with `show`, then `retry` if it may go.",
        "radiographer",
    ),
    "routing-failed": Explanation(
        "Tujuan studi ini tidak dapat ditentukan oleh aturan.",
        "Lihat sebabnya dengan `show`, perbaiki aturannya, lalu `retry`.",
        "The rules could not decide where this study goes.",
        "See the cause with `show`, correct the rule, then `retry`.",
        "IT",
    ),
    "rules-invalid": Explanation(
        "Aturan yang berlaku saat studi ini direncanakan tidak dapat dipakai lagi.",
        "Jalankan `rules check`; kembalikan tabel atau tujuan yang hilang, lalu `retry`.",
        "The rules by which this study was planned cannot be used any more.",
        "Run `rules check`; bring back the table or destination that is gone, then `retry`.",
        "IT",
    ),
}

#: Families of codes that end in an HTTP status or a fault of the line.
RULE_FAMILIES: dict[str, Explanation] = {
    "lookup-": Explanation(
        "Layanan yang ditanya oleh sebuah aturan tidak menjawab.",
        "Periksa [lookup:NAMA] dan layanannya; router mencoba lagi otomatis.",
        "The service that a rule asks does not answer.",
        "Check [lookup:NAME] and the service; the router tries again by itself.",
        "IT",
    ),
}
