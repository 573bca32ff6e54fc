"""`make translations`: collect the texts of the pages into pages.po, and compile what is translated to pages.mo.

A translator edits interface/http/pages/translations/<language>/LC_MESSAGES/pages.po; English needs none, it is what the
templates say. Changes when texts stand in another kind of file.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "interface" / "http" / "pages"
#: Language: how its plurals work. Source: CLDR, GNU gettext 12.6.
LANGUAGES = {"id": "nplurals=1; plural=0;"}
_WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)  # a date that does not change with each run
_KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "mark": None, "n": (1, 2), "plural": (1, 2),
             "marks": (1, 2)}


def collect() -> Catalog:
    """Return every text of templates and code, where it stands, untranslated."""
    found = Catalog(domain="pages", charset="utf-8")
    for path, method in _sources():
        with path.open("rb") as file:
            options = {"trimmed": "true", "silent": "false", "encoding": "utf-8"}
            for line, text, _comments, _context in extract(method, file, _KEYWORDS, (), options):
                found.add(text, locations=[(path.relative_to(ROOT).as_posix(), line)], flags=())
    return found


def _sources() -> Iterator[tuple[Path, str]]:
    for path in sorted(PAGES.glob("templates/*.html")):
        yield path, "jinja2.ext:babel_extract"
    for path in sorted(PAGES.glob("*.py")):
        yield path, "python"


def po_path(language: str) -> Path:
    """Return where a language's texts are."""
    return PAGES / "translations" / language / "LC_MESSAGES" / "pages.po"


def read(language: str) -> Catalog:
    """Return a language's catalogue as it is translated; empty for a language that has none yet."""
    path = po_path(language)
    plurals = f"Plural-Forms: {LANGUAGES[language]}\\n"
    text = path.read_text(encoding="utf-8") if path.exists() else f'msgid ""\nmsgstr ""\n"{plurals}"\n'
    catalogue = read_po(io.BytesIO(text.encode()), locale=language, domain="pages")
    catalogue.project, catalogue.version = "SATUSEHAT DICOM Router", "2"
    catalogue.header_comment = f"# Texts of the pages: {language}. New ones come by `make translations`."
    catalogue.copyright_holder = catalogue.last_translator = catalogue.language_team = "SATUSEHAT DICOM Router"
    catalogue.creation_date = catalogue.revision_date = _WRITTEN
    catalogue.msgid_bugs_address = "see docs/development.md"
    catalogue.fuzzy = False
    return catalogue


def compiled(catalogue: Catalog) -> bytes:
    """Return what belongs into pages.mo."""
    out = io.BytesIO()
    write_mo(out, catalogue)
    return out.getvalue()


def main() -> int:
    """Bring every catalogue up to date; 1 where something is not translated yet."""
    missing = 0
    for language in LANGUAGES:
        path = po_path(language)
        path.parent.mkdir(parents=True, exist_ok=True)
        known = read(language)
        known.update(collect(), no_fuzzy_matching=True)
        known.creation_date = _WRITTEN
        known.obsolete.clear()
        with path.open("wb") as file:
            write_po(file, known, width=120, omit_header=False, sort_output=True, include_lineno=False)
        path.with_suffix(".mo").write_bytes(compiled(known))
        for message in known:
            texts = message.string if isinstance(message.string, tuple) else (message.string,)
            if message.id and not all(texts):
                missing += 1
                sys.stderr.write(f"{language}: not translated: {message.id!r}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
