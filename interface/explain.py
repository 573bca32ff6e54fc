"""Why a study has not arrived, in plain words: what each reason code means, who acts, and what to do next.

Read by the command line today and by the pages later. Bahasa Indonesia first, English second. Changes when a
destination or the worker gives a new reason.
"""

from __future__ import annotations

from interface.explain_rules import RULE_FAMILIES, RULES
from interface.explanation import Explanation

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
    **RULES,
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
    "order-not-usable": Explanation(
        "Order yang ditemukan tidak dapat dipakai: dibatalkan, salah entri, atau terlalu jauh dari tanggal pemeriksaan "
        "(mungkin nomor lama milik pasien lain).",
        "Periksa order dengan `show`; kirim order yang benar dari SIMRS, lalu `retry`.",
        "The order found cannot be used: revoked, entered in error, or too far from the study date (it may be an old "
        "number of another patient).",
        "Look at it with `show`; send the right order from the hospital system, then `retry`.",
        "SIMRS",
    ),
    "foreign-imaging-study": Explanation(
        "Di SATUSEHAT sudah ada ImagingStudy lain dengan Accession Number ini.",
        "Bandingkan kedua sisi dengan `show`, perbaiki yang salah, lalu `retry`.",
        "SATUSEHAT already has another ImagingStudy with this accession number.",
        "Compare both sides with `show`, correct what is wrong, then `retry`.",
        "IT",
    ),
    "patient-mismatch": Explanation(
        "Order ini milik pasien lain daripada citranya.",
        "Bandingkan kedua sisi dengan `show`; perbaiki order/accession, atau `same-patient` bila orangnya sama.",
        "The order is for another patient than the images.",
        "Compare both sides with `show`; correct order or accession, or `same-patient` if it is the same person.",
        "radiographer",
    ),
    "mixed-patients": Explanation(
        "Citra dalam satu studi ini menyebut lebih dari satu pasien.",
        "Lihat dengan `show`; pisahkan di modalitas dan kirim ulang, atau `same-patient` bila orangnya sama.",
        "The images of this one study name more than one patient.",
        "See `show`; separate them at the modality and send again, or `same-patient` if it is the same person.",
        "radiographer",
    ),
    "mroc-insecure": Explanation(
        "mroc_client_url memakai http ke luar jaringan rumah sakit.", "Pakai alamat di dalam jaringan, atau https.",
        "mroc_client_url uses http to a host outside the hospital.", "Use an address inside the network, or https.",
        "IT",
    ),
    "webhook-insecure": Explanation(
        "webhook_url memakai http ke luar jaringan rumah sakit; sandinya akan terkirim terbuka.",
        "Pakai https, atau alamat di dalam jaringan rumah sakit.",
        "webhook_url uses http to a host outside the hospital; its password would travel in the clear.",
        "Use https, or an address inside the hospital's network.",
        "IT",
    ),
    "withdrawn": Explanation(
        "Studi ini sudah ditarik dari SATUSEHAT dan tidak dikirim lagi.",
        "Kirim suratnya (`withdraw --letter`) agar citranya dihapus di pusat.",
        "This study was taken back from SATUSEHAT and is not sent again.",
        "Send the letter (`withdraw --letter`) so that the images are removed there.",
        "IT",
    ),
    "withdraw-refused": Explanation(
        "SATUSEHAT tidak menerima penarikan ImagingStudy ini.", "Laporkan dengan suratnya (`withdraw --letter`).",
        "SATUSEHAT did not take back this ImagingStudy.", "Report it with the letter (`withdraw --letter`).",
        "platform",
    ),
    "partly-delivered": Explanation(
        "Sebagian citra ditolak atau tidak terbaca; selebihnya sudah terkirim.",
        "Lihat `show` dan `bad`; kirim ulang citra itu, atau `accept-partial` bila boleh tanpa citra itu.",
        "Some images were refused or are unreadable; all others were delivered.",
        "See `show` and `bad`; send those images again, or `accept-partial` if the study may go without them.",
        "IT",
    ),
    "exists-with-other-content": Explanation(
        "Di SATUSEHAT sudah ada citra dengan UID yang sama tetapi isi berbeda.",
        "Bandingkan asal kedua citra; UID yang sama tidak boleh dipakai dua kali.",
        "SATUSEHAT already has an image with the same UID and other content.",
        "Compare where both come from; one UID must not be used twice.",
        "IT",
    ),
    "duplicate": Explanation(
        "SATUSEHAT menyatakan ImagingStudy sudah ada, tetapi pencarian tidak menemukannya.",
        "Coba `retry` nanti; bila tetap, laporkan ke helpdesk SATUSEHAT dengan Accession Number-nya.",
        "SATUSEHAT says that the ImagingStudy exists, but no search finds it.",
        "Try `retry` later; if it stays, report it to the SATUSEHAT help desk with the accession number.",
        "platform",
    ),
    "imaging-study-gone": Explanation(
        "ImagingStudy yang pernah didaftarkan tidak ada lagi di SATUSEHAT.",
        "Cari tahu siapa yang menghapusnya sebelum `retry`.",
        "The ImagingStudy that was registered is no longer at SATUSEHAT.",
        "Find out who removed it before `retry`.",
        "IT",
    ),
    "imaging-study-withdrawn": Explanation(
        "ImagingStudy di SATUSEHAT sudah ditarik (entered-in-error atau cancelled).",
        "Pastikan studi ini memang harus dikirim, lalu kirim order baru.",
        "The ImagingStudy at SATUSEHAT was withdrawn (entered-in-error or cancelled).",
        "Make sure that this study shall be sent, then send a new order.",
        "IT",
    ),
    "withheld": Explanation(
        "SATUSEHAT tidak menampilkan data ini (aturan persetujuan atau privasi).",
        "Router memeriksa lagi otomatis; tanyakan persetujuan pasien bila berlanjut.",
        "SATUSEHAT withholds this (consent or privacy rules).",
        "The router looks again by itself; ask about the patient's consent if it lasts.",
        "SIMRS",
    ),
    "registration-changed": Explanation(
        "ImagingStudy belum memuat semua citra; diperbarui dulu.", "Tidak perlu tindakan.",
        "The ImagingStudy does not list all images yet; it is updated first.", "Nothing to do.",
    ),
    "not-in-inventory": Explanation(
        "Ada citra di antrean yang bukan bagian studi ini.", "Laporkan dengan keluaran `show`.",
        "There are images in the queue that are not part of this study.", "Report it with the output of `show`.", "IT",
    ),
    "unfinished-items": Explanation(
        "Masih ada citra tanpa tanda terima.", "Router melanjutkan otomatis.",
        "Some images have no receipt yet.", "The router goes on by itself.",
    ),
    "unexpected": Explanation(
        "Kesalahan tak terduga di router; dicoba lagi otomatis.", "Bila berulang, laporkan dengan log-nya.",
        "An unexpected fault in the router; it is tried again.", "If it comes back, report it with the log.", "IT",
    ),
    "disk-full": Explanation(
        "Disk tujuan penuh.", "Kosongkan ruang; router melanjutkan otomatis.",
        "The destination's disk is full.", "Make space; the router goes on by itself.", "IT",
    ),
    "no-answer": Explanation(
        "Sebagian citra belum dijawab oleh tujuan.", "Router mengirimnya lagi otomatis.",
        "The destination has not answered for some images yet.", "The router sends them again by itself.",
    ),
    "login-refused": Explanation(
        "Tujuan menolak login router.", "Periksa user, kata sandi, token atau kunci di bagian tujuan itu.",
        "The destination refuses the router's login.", "Check user, password, token or key in its section.", "IT",
    ),
    "dimse-connect": Explanation(
        "Node DICOM tujuan tidak dapat dihubungi.", "Periksa host, port, jaringan dan apakah node hidup.",
        "The DICOM node cannot be reached.", "Check host, port, network and whether the node is on.", "IT",
    ),
    "dimse-rejected": Explanation(
        "Node DICOM tujuan menolak asosiasi.", "Samakan AE title di kedua sisi; daftarkan router di node itu.",
        "The DICOM node rejects the association.", "Make the AE titles agree; register the router at the node.", "IT",
    ),
    "dimse-tls": Explanation(
        "Sambungan TLS ke node DICOM tidak dapat dipercaya.", "Periksa tls_ca, tls_name dan sertifikat kedua sisi.",
        "TLS with the DICOM node cannot be trusted.", "Check tls_ca, tls_name and both sides' certificates.", "IT",
    ),
    "dimse-a700": Explanation(
        "Node DICOM tujuan kehabisan ruang.", "Kosongkan ruang di node itu; router melanjutkan otomatis.",
        "The DICOM node is out of resources.", "Make space there; the router goes on by itself.", "IT",
    ),
    "commit-asked": Explanation(
        "Citra sudah terkirim; tujuan belum menjawab permintaan storage commitment.", "Router menunggu jawabannya.",
        "The images were sent; the node has not answered whether it keeps them.", "The router waits for the answer.",
    ),
    "commit-no-answer": Explanation(
        "Tujuan tidak menjawab permintaan storage commitment; diminta lagi.",
        "Periksa apakah node itu mengenal AE title, alamat dan port router.",
        "The node did not answer a request for storage commitment; it is asked again.",
        "Check that the node knows AE title, address and port of the router.", "IT",
    ),
    "commit-not-offered": Explanation(
        "Tujuan tidak menerima permintaan storage commitment.", "Aktifkan di node itu, atau setel commitment = no.",
        "The node does not take requests for storage commitment.", "Enable it there, or set commitment = no.", "IT",
    ),
    "sftp-host-key": Explanation(
        "Server SFTP menunjukkan host key yang tidak dikenal.",
        "Pastikan servernya benar, lalu perbarui known_hosts (ssh-keyscan).",
        "The SFTP server shows a host key that is not known.",
        "Make sure that it is the right server, then update known_hosts (ssh-keyscan).", "IT",
    ),
    "s3-no-bucket": Explanation(
        "Bucket tujuan tidak ada.", "Buat bucket itu atau perbaiki namanya.",
        "There is no such bucket.", "Make the bucket or correct its name.", "IT",
    ),
    "folder-missing": Explanation(
        "Folder tujuan tidak ada (mungkin tidak ter-mount).", "Periksa [folder:NAMA] path di router.conf.",
        "The destination folder is not there (perhaps not mounted).", "Check [folder:NAME] path in router.conf.", "IT",
    ),
    "folder-not-writable": Explanation(
        "Folder tujuan tidak dapat ditulisi.", "Periksa hak akses folder itu.",
        "The destination folder cannot be written.", "Check the folder's permissions.", "IT",
    ),
    "given-up": Explanation(
        "Dihentikan oleh petugas; citra tetap disimpan.", "`retry` mengirimnya lagi.",
        "Given up by a person; the images are kept.", "`retry` sends it again.", "IT",
    ),
    "cancelled": Explanation(
        "Dibatalkan oleh petugas; citra tetap disimpan.", "`retry` mengirimnya lagi.",
        "Stopped by a person; the images are kept.", "`retry` sends it again.", "IT",
    ),
    "caller-not-admitted": Explanation(
        "Citra dikirim oleh alat yang belum diizinkan (unknown_callers).",
        "Periksa dengan `devices`; bila benar, izinkan dengan `devices admit AET@ALAMAT`.",
        "The images were sent by a device that nobody has admitted (unknown_callers).",
        "Look with `devices`; if it is one of yours, `devices admit AET@ADDRESS`.",
        "IT",
    ),
    "commit-indexing": Explanation(
        "Permintaan storage commitment menunggu citra yang masih diindeks.", "Tidak perlu tindakan.",
        "A storage commitment request waits for images that are still being indexed.", "Nothing to do.",
    ),
    "commit-waits-delivery": Explanation(
        "Alat meminta storage commitment; SATUSEHAT belum mengonfirmasi semua citra.", "Tidak perlu tindakan.",
        "A device asked for storage commitment; SATUSEHAT has not confirmed every image yet.", "Nothing to do.",
    ),
    "commit-unreachable": Explanation(
        "Jawaban storage commitment tidak sampai: alat tidak dapat dihubungi.",
        "Periksa alamat di commitment_callers dan apakah alat mendengarkan; router mencoba lagi otomatis.",
        "A storage commitment answer could not be brought: the device cannot be reached.",
        "Check the address in commitment_callers and that the device listens; the router tries again by itself.",
        "IT",
    ),
    "commit-refused": Explanation(
        "Alat menolak jawaban storage commitment.", "Periksa peran (role selection) dan AE title pada alat.",
        "The device refused the storage commitment answer.", "Check role selection and AE titles at the device.",
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
    "patience-ended": Explanation(
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
    "reset": Explanation(
        "Sambungan ke SATUSEHAT terputus di tengah jalan.", "Router mencoba lagi otomatis.",
        "The connection to the platform broke.", "The router tries again by itself.", "platform",
    ),
    "reply-not-understood": Explanation(
        "Balasan SATUSEHAT tidak dapat dipahami.", "Router mencoba lagi otomatis; laporkan bila berlanjut.",
        "The platform's reply could not be understood.", "The router tries again; report it if it lasts.", "platform",
    ),
    "not-proven": Explanation(
        "Terkirim, tetapi sebagian citra sudah ada di tujuan atau diterima tanpa jawaban jelas: isinya belum terbukti.",
        "Tidak perlu tindakan; citranya tetap disimpan. `verify` memeriksa lagi; lihat `purge_unverified`.",
        "Delivered, but some images were there already or were accepted without a clear answer: content not proven.",
        "Nothing to do; the images are kept. `verify` looks again; see `purge_unverified`.",
    ),
    "fhir-budget": Explanation(
        "Jatah panggilan FHIR per menit habis (setelan fhir_per_minute).", "Router melanjutkan otomatis.",
        "The FHIR calls of this minute are used up (setting fhir_per_minute).", "The router goes on by itself.",
    ),
    "paused": Explanation(
        "Tujuan ini dihentikan sementara oleh petugas.", "`lane NAMA resume` melanjutkannya.",
        "A person has paused this destination.", "`lane NAME resume` lets it go on.", "IT",
    ),
    "too-many-pages": Explanation(
        "SATUSEHAT mengembalikan terlalu banyak hasil pencarian.", "Laporkan dengan Accession Number-nya.",
        "The platform returned too many search results.", "Report it with the accession number.", "IT",
    ),
    "alert-device-silent": Explanation(
        "Alat ini biasanya mengirim citra pada jam-jam ini, sekarang tidak.",
        "Periksa alat dan jaringannya; uji dengan C-ECHO dari alat. Tandai sudah tahu bila memang libur.",
        "This device usually sends images at these hours, and now it does not.",
        "Check the device and its network; try C-ECHO from it. Acknowledge the alert if it is simply closed.",
        "radiographer",
    ),
    "alert-waiting": Explanation(
        "Order studi-studi ini belum ada di SATUSEHAT.",
        "SIMRS perlu mengirim order; lihat daftar tunggu untuk accession yang salah.",
        "The orders of these studies are not in SATUSEHAT yet.",
        "The hospital system must send the orders; look through the waiting room for wrong accession numbers.",
        "SIMRS",
    ),
    "alert-lane-down": Explanation(
        "Citra aman di sini dan dikirim sendiri setelah tujuan menjawab lagi.",
        "Periksa jaringan dengan `check`; bila SATUSEHAT terganggu, tidak perlu tindakan.",
        "The images are safe here and leave by themselves once the destination answers again.",
        "Try the network with `check`; if SATUSEHAT itself is down, there is nothing to do.",
        "IT",
    ),
    "alert-disk": Explanation(
        "Bila disk penuh, citra baru ditolak dan alat mengulanginya nanti.",
        "Tambah ruang, atau lihat `storage`: apa yang disimpan dan mengapa.",
        "With a full disk new images are refused, and devices send them again later.",
        "Add space, or see `storage`: what is kept and why.",
        "IT",
    ),
    "alert-credentials": Explanation(
        "client_key atau secret_key tidak diterima lagi; tidak ada studi yang hilang.",
        "Periksa kedua kunci dan url di router.conf, lalu jalankan ulang router.",
        "client_key or secret_key is not accepted any more; no study is lost.",
        "Check both keys and url in router.conf, then restart the router.",
        "IT",
    ),
    "alert-clock": Explanation(
        "Jam yang salah membuat waktu studi salah dan bisa membuat token ditolak.",
        "Nyalakan sinkronisasi waktu (NTP) di komputer ini.",
        "A wrong clock makes times of studies wrong and may make tokens fail.",
        "Turn on time synchronisation (NTP) on this machine.",
        "IT",
    ),
    "alert-set-aside": Explanation(
        "Berkas ini tidak terbaca; tetap disimpan, tidak dikirim.",
        "Lihat alasannya di halaman Tertahan atau dengan `bad`; minta pengirim mengirim ulang citranya.",
        "These files cannot be read; they are kept and not sent on.",
        "See the reasons on the page Held or with `bad`; have the sender send the images again.",
        "IT",
    ),
    "alert-body": Explanation(
        "webhook_body peringatan ini bukan JSON atau formulir.", "Perbaiki di [alert:NAMA], lalu `retry`.",
        "The webhook_body of this alert is no JSON or form.", "Correct it in [alert:NAME], then `retry`.",
        "IT",
    ),
}

#: Families of codes that end in an HTTP status.
FAMILIES: dict[str, Explanation] = {
    **RULE_FAMILIES,
    "dimse-": Explanation(
        "Node DICOM tujuan sedang tidak menerima citra.", "Lihat alasannya; router mencoba lagi otomatis.",
        "The DICOM node does not take images now.", "Read the reason; the router tries again by itself.", "IT",
    ),
    "stow-": Explanation(
        "Server DICOMweb menjawab dengan galat.", "Periksa url dan log server itu; router mencoba lagi otomatis.",
        "The DICOMweb server answers with an error.", "Check url and its log; the router tries again by itself.", "IT",
    ),
    "sftp-": Explanation(
        "Server SFTP tidak dapat dipakai.", "Periksa host, port dan jaringan; router mencoba lagi otomatis.",
        "The SFTP server cannot be used.", "Check host, port and network; the router tries again by itself.", "IT",
    ),
    "s3-": Explanation(
        "Penyimpanan objek tidak dapat dipakai.", "Periksa endpoint dan jaringan; router mencoba lagi otomatis.",
        "The object store cannot be used.", "Check endpoint and network; the router tries again by itself.", "IT",
    ),
    "mail-": Explanation(
        "Server surel tidak menerima peringatan ini; pengiriman citra tidak terganggu.",
        "Periksa [mail] dan alamat penerima; coba dengan `alerts test NAMA`.",
        "The mail server did not take this alert; deliveries go on.",
        "Check [mail] and the recipients' addresses; try it with `alerts test NAME`.",
        "IT",
    ),
    "mroc-": Explanation(
        "Klien MROC tidak menerima salinan citra; pengiriman ke SATUSEHAT tidak terganggu.",
        "Periksa mroc_client_url dan klien MROC; router mencoba lagi otomatis.",
        "The MROC client did not take its copies; deliveries go on.",
        "Check mroc_client_url and the MROC client; the router tries again by itself.",
        "IT",
    ),
    "webhook-": Explanation(
        "Sistem rumah sakit menolak pemberitahuan (webhook); pengiriman ke SATUSEHAT tidak terganggu.",
        "Periksa webhook_url, webhook_user dan webhook_password; router mencoba lagi otomatis.",
        "The hospital's system did not take the notice (webhook); deliveries go on.",
        "Check webhook_url, webhook_user and webhook_password; the router tries again by itself.",
        "IT",
    ),
    "http-": Explanation(
        "Server SATUSEHAT menjawab dengan galat.", "Router mencoba lagi otomatis.",
        "The platform answered with an error.", "The router tries again by itself.", "platform",
    ),
    "rule-": Explanation(
        "SATUSEHAT menolak isi data menurut aturan dengan nomor ini.",
        "Baca kalimat SATUSEHAT di `show`, perbaiki di SIMRS atau modalitas, lalu `retry`.",
        "SATUSEHAT refused the content by the rule of this number.",
        "Read SATUSEHAT's words in `show`, correct it in the hospital system or at the modality, then `retry`.", "IT",
    ),
    "token-": Explanation(
        "Layanan token SATUSEHAT menjawab dengan galat.", "Router mencoba lagi otomatis.",
        "The platform's token service answered with an error.", "The router tries again by itself.", "platform",
    ),
}

_UNKNOWN = Explanation("", "", "", "")


def explain(code: str) -> Explanation:
    """Return the explanation of a reason code; unknown codes explain nothing and leave the reason to speak."""
    if code in EXPLANATIONS:
        return EXPLANATIONS[code]
    for prefix, explanation in FAMILIES.items():
        if code.startswith(prefix):
            return explanation
    return _UNKNOWN


def state_text(state: str, language: str) -> str:
    """Return a job state in words."""
    indonesian, english = STATES.get(state, (state, state))
    return english if language == "en" else indonesian


def render_reasons(language: str) -> str:
    """Return the table of all reasons for docs/troubleshooting.md and its translation (Markdown)."""
    head = "| Reason | Meaning | Who | What to do |" if language == "en" else "| Alasan | Arti | Siapa | Langkah |"
    lines = [head, "| --- | --- | --- | --- |"]
    for code, one in [*EXPLANATIONS.items(), *((f"{prefix}…", one) for prefix, one in FAMILIES.items())]:
        meaning, step = (one.meaning_en, one.next_en) if language == "en" else (one.meaning_id, one.next_id)
        lines.append(f"| `{code}` | {meaning} | {one.who} | {step} |")
    return "\n".join(lines) + "\n"
