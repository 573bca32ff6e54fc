"""The rule book of one configuration: composed here for the deliver role, the commands and the pages.

Imports internal.rulebook, lookup. Changes when a rule book needs another part.
"""

from __future__ import annotations

from interface.lookup import http_lookups
from internal.config import Settings
from internal.fhir import dates
from internal.pseudonyms import Vault, open_vault
from internal.rulebook import RuleBook
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
