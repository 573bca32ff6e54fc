"""The rules in force: loaded from router.conf and the catalogue together, asked by assemble and by the workers.

Layer 4, over rule_rows, rewrite and the spool. A set that cannot be compiled leaves the old one in force; every set
that was in force is kept by its revision, because recipes name it. Safe for several threads. Changes when rules come
from somewhere else, or are asked at another moment.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import BinaryIO, Final

from internal import catalogue, elements, rule_rows
from internal.elements import DataSet
from internal.errors import BytesMissing, ConfigurationInvalid, NotDicom, Refused, Transient
from internal.frozen import PLAIN, REWRITE, NewForm
from internal.model import Instance, Inventory, Item
from internal.pseudonyms import Vault
from internal.rewrite import ENGINE, rewrite
from internal.rules import EditFailed, Facts, Routing, RuleSet, RulesInvalid, RuleText, compile_rules
from internal.rules.edits import Find, LookUp
from internal.spool import Spool
from internal.store import Store
from internal.tables import Tables

log = logging.getLogger("router.rules")

#: Why a study is held while there is no set of rules that could be used.
RULES_INVALID: Final = "rules-invalid"
RULE_FAILED: Final = "routing-failed"
RULE_HOLD: Final = "held-by-rule"


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a person has to look at a study before it goes on."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a study goes by the rules: instances by destination, the set that said so, and what holds it."""

    instances: Mapping[str, tuple[Instance, ...]]
    rules: str
    routing: Routing | None
    hold: Hold | None = None


def look_up_nowhere(source: LookUp, key: str) -> str | None:
    """Answer look-ups where there is no network."""
    raise EditFailed(f"lookup {source.name} is not configured")


class RuleBook:
    """The set in force and the way from a revision to its rules."""

    def __init__(
        self, *, file_texts: Sequence[RuleText], destinations: Collection[str], default: Sequence[str],
        tables: Tables, vault: Callable[[], Vault], lookups: Collection[str] = (),
        look_up: Find = look_up_nowhere, zone: tzinfo = UTC,
    ) -> None:
        self._file_texts = tuple(file_texts)
        self._destinations = frozenset(destinations)
        self.default = tuple(default)
        self._tables = tables
        self._make_vault = vault
        self._lookups = frozenset(lookups)
        self._look_up = look_up
        self.zone = zone
        self._lock = threading.Lock()
        self._token = -1
        self._vault: Vault | None = None
        self.in_force: RuleSet | None = None
        self.problems: tuple[str, ...] = ()
        self._by_revision: dict[str, RuleSet] = {"": RuleSet()}

    # --- loading ---------------------------------------------------------------------------------------------------

    def compile(self, rows: Sequence[RuleText]) -> RuleSet:
        """Return the set of the file's rules and these of the catalogue. Raises RulesInvalid with every mistake."""
        return self._compile((*self._file_texts, *rows))

    def _compile(self, texts: Sequence[RuleText]) -> RuleSet:
        return compile_rules(texts, self._destinations, self.fault_of)

    def fault_of(self, source: LookUp) -> str:
        """Return what is wrong with a table or a look-up that a rule names, "" if nothing."""
        if source.kind == "table":
            return self._tables.fault(source.name)
        return "" if source.name in self._lookups else f"there is no section [lookup:{source.name}]"

    def reload(self, store: Store, now: int) -> bool:
        """Bring the set in force up to date; True if another one is in force now.

        A set with a mistake changes nothing: `problems` says what is wrong. At the first call the last good set comes
        back; where there never was one, `in_force` stays None and every study is held.
        """
        with store.reading() as tx:
            token = catalogue.token(tx, rule_rows.KIND)
            if token == self._token:
                return False
            rows = rule_rows.catalogue_texts(tx)
            last = rule_rows.newest_set(tx) if self.in_force is None else None
        before = self.in_force
        try:
            self._take(store, self.compile(rows), (*self._file_texts, *rows), now)
            self.problems = ()
        except RulesInvalid as error:
            self.problems = tuple(map(str, error.problems))
            log.error("The rules cannot be used; the set before them stays in force",
                      extra={"fields": {"problems": list(self.problems[:20])}})
            if self.in_force is None and last is not None:
                self._take_last(store, last, now)
        self._token = token  # last: a database that was busy is asked again
        return self.in_force is not before

    def _take_last(self, store: Store, texts: Sequence[RuleText], now: int) -> None:
        try:
            self._take(store, self._compile(texts), texts, now)
        except RulesInvalid:
            log.error("The last good set of rules cannot be used any more; every study is held")

    def _take(self, store: Store, rules: RuleSet, texts: Sequence[RuleText], now: int) -> None:
        with store.transaction() as tx:
            rule_rows.keep_set(tx, rules.revision, texts, now)
        self._by_revision[rules.revision] = rules
        self.in_force = rules

    def of_revision(self, store: Store, revision: str) -> RuleSet:
        """Return a set that was in force. Raises Refused if it cannot be used any more: a table is gone."""
        with self._lock:
            known = self._by_revision.get(revision)
        if known is not None:
            return known
        with store.reading() as tx:
            texts = rule_rows.kept_set(tx, revision)
        if texts is None:
            raise Refused(f"the set of rules {revision} is not known here", code=RULES_INVALID)
        try:
            rules = self._compile(texts)
        except RulesInvalid as error:
            raise Refused(f"the rules it was planned by cannot be used now: {error}", code=RULES_INVALID) from None
        with self._lock:
            self._by_revision[revision] = rules
        return rules

    # --- where a study goes ----------------------------------------------------------------------------------------

    def facts(self, spool: Spool, instance: Instance) -> Facts:
        """Return what conditions can see of an instance; its file is opened when one asks for it."""
        def read() -> DataSet | None:
            try:
                with spool.open_entry(instance.id) as file:
                    return elements.read_header(file, instance.dataset_offset, instance.dataset_bytes,
                                                instance.header.transfer_syntax_uid)
            except BytesMissing:
                raise EditFailed("the file of an image that a rule asks about is gone") from None
            except NotDicom as error:
                raise EditFailed(f"a header that a rule asks for cannot be read: {error}") from None

        return Facts(instance.header, instance.arrival, read, self.zone)

    def plan(self, spool: Spool, inventory: Inventory) -> Plan:
        """Return where a study goes, by the set in force; without one everything is held.

        A rule that cannot be asked holds the study; OSError when a file cannot be read now.
        """
        instances = inventory.instances
        whole = dict.fromkeys(self.default, instances)
        if self.in_force is None:
            return Plan(whole, "", None, Hold(RULES_INVALID, "; ".join(self.problems)[:500] or "no usable rules"))
        if not self.in_force.rules:
            return Plan(whole if instances else {}, self.in_force.revision, None)
        facts = [self.facts(spool, one) for one in instances]
        try:
            routing = self.in_force.route(facts, self.default)
        except EditFailed as error:
            return Plan(whole, self.in_force.revision, None, Hold(RULE_FAILED, str(error)))
        hold = None
        if routing.holds:
            hold = Hold(RULE_HOLD, "; ".join(f"rule {name}: {reason}" for name, reason in routing.holds))
        return Plan({name: tuple(instances[at] for at in chosen) for name, chosen in routing.destinations.items()},
                    self.in_force.revision, routing, hold)

    def plan_from(self, spool: Spool) -> Callable[[Inventory], Plan]:
        """Return `plan` for the files of one spool."""
        return lambda inventory: self.plan(spool, inventory)

    # --- on the way out --------------------------------------------------------------------------------------------

    @property
    def vault(self) -> Vault:
        """Return the keys; opened when first needed."""
        with self._lock:
            if self._vault is None:
                self._vault = self._make_vault()
            return self._vault

    def find(self, source: LookUp, key: str) -> str | None:
        """Look something up in a table or elsewhere. Raises EditFailed and Transient."""
        if source.kind != "table":
            return self._look_up(source, key)
        try:
            return self._tables.find(source.name, key)
        except ConfigurationInvalid as error:
            raise EditFailed(str(error)) from None

    def rewriter(self, store: Store, destination: str, revision: str) -> ItemRewriter:
        """Return what changes items of a job planned by the set `revision`, and those frozen by an earlier one."""
        return ItemRewriter(self, store, destination, self.of_revision(store, revision))

    def fault_on_way(self, spool: Spool, instance: Instance, destination: str) -> str:
        """Return why an instance could not go to a destination by the set in force, "" if it could."""
        rules = self.in_force
        if rules is None or not any(rule.edits_for(destination) for rule in rules.rules):
            return ""
        try:
            with spool.open_entry(instance.id) as file:
                received, facts = self.facts_of_file(file, instance)
                firing = rules.edits_for(facts, destination)
                if firing:
                    rewrite(received, facts, rules, firing, self.find, self.vault.keys)
        except (EditFailed, Refused, Transient, BytesMissing) as error:
            return f"{destination}: {error}"
        return ""

    def facts_of_file(self, file: BinaryIO, instance: Instance) -> tuple[DataSet, Facts]:
        """Return a whole data set and what conditions see of it. Raises Refused if it cannot be read."""
        try:
            received = elements.read(file, instance.dataset_offset, instance.dataset_bytes,
                                     instance.header.transfer_syntax_uid)
        except NotDicom as error:
            raise Refused(f"an instance cannot be rewritten: {error}", code="rewrite-failed") from None
        return received, Facts(instance.header, instance.arrival, lambda: received, self.zone)


@dataclass(frozen=True, slots=True)
class ItemRewriter:
    """Rewrites items for one destination by one set of rules, or by the one that an item's recipe names."""

    book: RuleBook
    store: Store
    destination: str
    rules: RuleSet

    @property
    def edits(self) -> bool:
        """Whether a rule of the set can change an item that was never frozen."""
        return any(rule.edits_for(self.destination) for rule in self.rules.rules)

    def rewrite(self, file: BinaryIO, item: Item) -> NewForm | None:
        """Return the new form of an item, None if it leaves as it came (frozen.Rewriter)."""
        recipe = item.recipe
        if recipe.get("kind") == PLAIN["kind"]:
            return None
        rules = self.rules
        if recipe.get("kind") == REWRITE:
            rules = self.book.of_revision(self.store, str(recipe["rules"]))
        elif not self.edits:
            return None
        received, facts = self.book.facts_of_file(file, item.instance)
        try:
            firing = rules.edits_for(facts, self.destination)
            if not firing and not recipe:
                return None
            done = rewrite(received, facts, rules, firing, self.book.find, self.book.vault.keys,
                           recipe.get("found", {}))
        except EditFailed as error:
            raise Refused(f"a rule cannot be followed: {error}", code=error.code) from None
        recipe = {"kind": REWRITE, "engine": ENGINE, "rules": rules.revision, "key": self.book.vault.key_id,
                  "found": dict(done.found)}
        return NewForm(done.pieces, done.header, recipe, done.pseudonyms)
