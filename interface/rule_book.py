"""The rule book of one configuration: composed here for the deliver role, the commands and the pages.

Also the lines of one rule as people write them, and back. Imports internal.rulebook, lookup. Changes when a rule book
needs another part.
"""

from __future__ import annotations

from collections.abc import Mapping

from interface.lookup import http_lookups
from internal.config import Settings
from internal.config.conffile import scan
from internal.errors import NotAllowed
from internal.fhir import dates
from internal.pseudonyms import Vault, open_vault
from internal.rulebook import RuleBook
from internal.rules.ruleset import KEYS
from internal.tables import Tables


def build_book(settings: Settings) -> RuleBook:
    """Return the rule book; nothing is read or compiled yet."""
    return RuleBook(
        file_texts=settings.rules, destinations=settings.lane_names(),
        default=settings.router.default_send_to, tables=Tables(settings.base), vault=lambda: vault_of(settings),
        lookups=settings.named.get("lookup", {}).keys(), look_up=http_lookups(settings).find,
        zone=dates.zone(settings.satusehat.tz_name),
    )


def vault_of(settings: Settings) -> Vault:
    """Return the keys for new identities; made in the data folder if none is configured."""
    return open_vault(settings.router.pseudonym_key.reveal(), settings.data_dir)


def entries_of(text: str, name: str) -> dict[str, str]:
    """Return the entries of a rule from its lines, as they would stand below [rule:NAME]; `name` is for messages.

    Raises NotAllowed with the line of every mistake in them.
    """
    conf = scan(text, name, "rule")
    if conf.problems or conf.sections:
        raise NotAllowed("\n".join(map(str, conf.problems)) or "a rule has no sections: give its lines alone")
    return {key: entry.text for (_, key), entry in conf.entries.items()}


def lines_of(entries: Mapping[str, str]) -> str:
    """Return a rule's entries as they would stand below [rule:NAME]."""
    ordered = sorted(entries.items(), key=lambda one: KEYS.index(one[0]) if one[0] in KEYS else len(KEYS))
    return "\n".join(f"{key} =" + ("\n    " if "\n" in value else " ") + value.strip().replace("\n", "\n    ")
                     for key, value in ordered)
