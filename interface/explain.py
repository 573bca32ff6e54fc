"""Why a study has not arrived, in plain words: what each reason code means, who acts, and what to do next.

Read by the command line today and by the pages later. Bahasa Indonesia first, English second. Changes when a
destination or the worker gives a new reason.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Explanation:
    """One cause for people: what it means and the next step, in both languages, and who has to act."""

    meaning_id: str
    next_id: str
    meaning_en: str
    next_en: str
    who: str = "router"

    def text(self, language: str) -> str:
        """Return meaning and next step in `language` ("id" or "en")."""
        if language == "en":
            return f"{self.meaning_en} {self.next_en}".strip()
        return f"{self.meaning_id} {self.next_id}".strip()


#: State of a job in words, (Indonesian, English).
STATES: dict[str, tuple[str, str]] = {
    "queued": ("dalam antrean", "queued"),
    "active": ("sedang dikirim", "being sent"),
    "deferred": ("ditunda, dicoba lagi otomatis", "deferred, tried again by itself"),
    "waiting": ("menunggu", "waiting"),
    "held": ("tertahan, perlu tindakan", "held, needs a person"),
    "done": ("terkirim dan terkonfirmasi", "delivered and confirmed"),
    "cancelled": ("dibatalkan", "cancelled"),
    "receiving": ("masih menerima citra", "still receiving images"),
}

EXPLANATIONS: dict[str, Explanation] = {
    "no-accession": Explanation(
        "Citra tidak membawa Accession Number.",
        "Isi Accession Number di modalitas (paling baik lewat worklist), lalu kirim ulang.",
        "The images carry no accession number.",
        "Set the accession number at the modality (best from a worklist) and send again.",
        "radiographer",
    ),
    "no-order": Explanation(
        "Belum ada ServiceRequest di SATUSEHAT dengan Accession Number ini.",
        "SIMRS perlu mengirim order; router memeriksa lagi otomatis, atau jalankan `retry`.",
        "SATUSEHAT has no ServiceRequest with this accession number yet.",
        "The hospital system must send the order; the router looks again by itself, or use `retry`.",
        "SIMRS",
    ),
    "index-lag": Explanation(
        "Balasan pendaftaran ImagingStudy hilang; router memastikan dulu agar tidak terdaftar dua kali.",
        "Tidak perlu tindakan.",
        "The reply to the registration was lost; the router makes sure that nothing is registered twice.",
        "Nothing to do.",
    ),
    "re-registration-pause": Explanation(
        "Citra susulan datang; pendaftaran berikutnya sengaja dijarangkan.",
        "Tidak perlu tindakan.",
        "Late images came in; further registrations are spaced out on purpose.",
        "Nothing to do.",
    ),
    "several-orders": Explanation(
        "Lebih dari satu ServiceRequest memakai Accession Number ini.",
        "Batalkan order yang salah di SIMRS, lalu `retry`.",
        "More than one ServiceRequest has this accession number.",
        "Revoke the wrong order in the hospital system, then `retry`.",
        "SIMRS",
    ),
    "order-too-old": Explanation(
        "Order yang ditemukan terlalu jauh dari tanggal pemeriksaan; mungkin nomor lama milik pasien lain.",
        "Periksa order; bila nomor dipakai ulang, kirim order baru lalu `retry`.",
        "The order found lies too far from the study date; it may be an old number of another patient.",
        "Check the order; if the number was used again, send a new order, then `retry`.",
        "SIMRS",
    ),
    "order-not-active": Explanation(
        "Order dibatalkan atau salah entri di SATUSEHAT.",
        "Kirim order yang benar, lalu `retry`.",
        "The order was revoked or entered in error.",
        "Send the right order, then `retry`.",
        "SIMRS",
    ),
    "foreign-imaging-study": Explanation(
        "Di SATUSEHAT sudah ada ImagingStudy lain dengan Accession Number ini.",
        "Bandingkan kedua sisi dengan `show`, perbaiki yang salah, lalu `retry`.",
        "SATUSEHAT already has another ImagingStudy with this accession number.",
        "Compare both sides with `show`, correct what is wrong, then `retry`.",
        "IT",
    ),
    "partly-delivered": Explanation(
        "Sebagian citra ditolak atau tidak terbaca; selebihnya sudah terkirim.",
        "Lihat `show` dan `bad`; kirim ulang citra itu, atau `accept-partial` bila boleh tanpa citra itu.",
        "Some images were refused or are unreadable; all others were delivered.",
        "See `show` and `bad`; send those images again, or `accept-partial` if the study may go without them.",
        "IT",
    ),
    "conflict": Explanation(
        "Satu citra datang dua kali dengan isi berbeda.",
        "Tentukan mana yang benar; keduanya disimpan.",
        "One image came twice with different content.",
        "Decide which one counts; both are kept.",
        "radiographer",
    ),
    "environment-changed": Explanation(
        "Studi ini milik lingkungan SATUSEHAT yang lain (misalnya staging).",
        "Jalankan `retry` bila memang harus dikirim ke lingkungan sekarang.",
        "This study belongs to another SATUSEHAT environment (staging, for example).",
        "Use `retry` if it shall be sent to the present one.",
        "IT",
    ),
    "credentials-refused": Explanation(
        "SATUSEHAT menolak client_key/secret_key.",
        "Periksa organization_id, client_key, secret_key dan url di router.conf.",
        "SATUSEHAT refused client_key/secret_key.",
        "Check organization_id, client_key, secret_key and url in router.conf.",
        "IT",
    ),
    "no-api-product": Explanation(
        "Kredensial ini tidak berlaku di lingkungan tersebut (api product tidak cocok).",
        "Pastikan url sesuai dengan kredensial (staging atau produksi).",
        "These credentials are not valid in this environment (no matching API product).",
        "Make sure that url fits the credentials (staging or production).",
        "IT",
    ),
    "bytes-missing": Explanation(
        "Berkas citra tidak ditemukan di disk.", "Kirim ulang dari modalitas atau PACS, lalu `retry`.",
        "The image file is not on the disk.", "Send it again from the modality or PACS, then `retry`.", "IT",
    ),
    "bytes-damaged": Explanation(
        "Berkas citra di disk rusak.", "Periksa disk; kirim ulang dari modalitas atau PACS, lalu `retry`.",
        "The image file on the disk is damaged.", "Check the disk; send it again, then `retry`.", "IT",
    ),
    "worker-died": Explanation(
        "Router berhenti tiga kali pada langkah yang sama.", "Laporkan dengan log-nya; `retry` mencoba lagi.",
        "The router ended three times at the same step.", "Report it with the log; `retry` tries again.", "IT",
    ),
    "patience": Explanation(
        "Batas kesabaran habis (setelan patience).", "Periksa penyebabnya, lalu `retry`.",
        "Patience ended (setting patience).", "Look at the cause, then `retry`.", "IT",
    ),
    "dns": Explanation(
        "Nama server SATUSEHAT tidak dapat ditemukan (DNS).", "Periksa koneksi internet dan DNS.",
        "The platform's host name could not be resolved (DNS).", "Check internet connection and DNS.", "IT",
    ),
    "connect": Explanation(
        "Server SATUSEHAT tidak dapat dihubungi.", "Periksa koneksi internet, proxy dan firewall.",
        "The platform could not be reached.", "Check internet connection, proxy and firewall.", "IT",
    ),
    "tls": Explanation(
        "Sambungan aman (TLS) ke server tidak dapat dipercaya.", "Periksa jam komputer, proxy dan sertifikat.",
        "The secure connection (TLS) could not be trusted.", "Check this machine's clock, proxy and certificates.",
        "IT",
    ),
    "timeout": Explanation(
        "Server SATUSEHAT tidak menjawab tepat waktu.", "Router mencoba lagi otomatis.",
        "The platform did not answer in time.", "The router tries again by itself.", "platform",
    ),
}

_UNKNOWN = Explanation("", "", "", "")


def explain(code: str) -> Explanation:
    """Return the explanation of a reason code; unknown codes explain nothing and leave the reason to speak."""
    return EXPLANATIONS.get(code, _UNKNOWN)


def state_text(state: str, language: str) -> str:
    """Return a job state in words."""
    indonesian, english = STATES.get(state, (state, state))
    return english if language == "en" else indonesian
