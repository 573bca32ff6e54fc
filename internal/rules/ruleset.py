"""A set of rules in order: compiled from their texts as a whole or not at all, and asked where a study goes.

Imports conditions, actions, facts. `compile_rules` reports every mistake with file and line; `RuleSet.route` decides
about a study, `RuleSet.rewrite` about one instance on its way to one destination. Changes with what a rule may say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from internal.config import Problem, RuleText
from internal.rules.actions import MAX_ACTIONS, Action, parse_action
from internal.rules.conditions import ALWAYS, Condition, Trace, parse_condition
from internal.rules.edits import Edits, LookUp
from internal.rules.facts import Facts
from internal.rules.failures import EditFailed, RulesInvalid, SyntaxProblem
from internal.rules.syntax import likely

PLATFORM: Final = "satusehat"
MAX_RULES: Final = 500
KEYS: Final = ("when", "only", "do", "for", "send_to", "hold", "keep", "stop", "enabled")
_YES_NO: Final = {"yes": True, "no": False, "ya": True, "tidak": False, "on": True, "off": False, "true": True,
                  "false": False, "1": True, "0": False}
_ACCESSION: Final = 0x00080050
_MAX_REASON: Final = 200


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule.

    `destinations`: whose copies its actions change; None: those of every destination.
    """

    text: RuleText
    when: Condition
    only: Condition
    actions: tuple[Action, ...] = ()
    destinations: frozenset[str] | None = None
    send_to: tuple[str, ...] = ()
    hold: str = ""
    keep: bool = False
    stop: bool = False
    deidentifies: bool = field(init=False, default=False)  # its copies leave without the patient's identity

    def __post_init__(self) -> None:
        object.__setattr__(self, "deidentifies", any(action.deidentifies for action in self.actions))

    @property
    def name(self) -> str:
        """Return its name."""
        return self.text.name

    @property
    def routes(self) -> bool:
        """Return whether it has a say in where a study goes."""
        return bool(self.send_to or self.hold or self.keep or self.stop)

    def edits_for(self, destination: str) -> bool:
        """Return whether it changes what goes to a destination."""
        return bool(self.actions) and (self.destinations is None or destination in self.destinations)


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a study goes: for each destination the places (in the sequence of facts) of the instances that go there.

    `fired`: the rules that decided. `holds`: (rule, reason). `by_default`: no rule sent it anywhere.
    """

    destinations: Mapping[str, tuple[int, ...]]
    fired: tuple[str, ...] = ()
    holds: tuple[tuple[str, str], ...] = ()
    kept_by: str = ""
    by_default: bool = False


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules in order. `revision` names their texts, "" for no rules; equal texts have the same on every node."""

    rules: tuple[Rule, ...] = ()
    revision: str = ""

    def route(self, instances: Sequence[Facts], default: Sequence[str]) -> Routing:
        """Decide about a study from all its instances; `default` is where it goes if no rule says.

        A rule's `when` holds for the study as soon as it holds for one instance; its `only` picks the instances.
        May raise EditFailed.
        """
        admitted: dict[str, set[int]] = {}
        fired: list[str] = []
        holds: list[tuple[str, str]] = []
        kept_by = ""
        for rule in (rule for rule in self.rules if rule.routes and instances):
            if not any(rule.when.holds(facts) for facts in instances):
                continue
            fired.append(rule.name)
            chosen = {at for at, facts in enumerate(instances) if rule.only is ALWAYS or rule.only.holds(facts)}
            for name in rule.send_to:
                admitted.setdefault(name, set()).update(chosen)
            if rule.hold:
                holds.append((rule.name, rule.hold))
            kept_by = kept_by or (rule.name if rule.keep else "")
            if rule.stop:
                break
        by_default = not admitted and not kept_by
        if by_default:
            admitted = {name: set(range(len(instances))) for name in dict.fromkeys(default)} if instances else {}
        return Routing({name: tuple(sorted(chosen)) for name, chosen in admitted.items() if chosen}, tuple(fired),
                       tuple(holds), kept_by, by_default)

    def edits_for(self, facts: Facts, destination: str) -> tuple[Rule, ...]:
        """Return the rules that change this instance on its way to a destination.

        Raises EditFailed, also where a rule sends de-identified copies there and none would de-identify this one.
        """
        editing = [rule for rule in self.rules if rule.edits_for(destination)]
        firing = tuple(rule for rule in editing if rule.when.holds(facts) and rule.only.holds(facts))
        if not any(rule.deidentifies for rule in firing):
            for rule in editing:
                if rule.deidentifies and destination in rule.send_to:
                    raise EditFailed(f"{destination} gets de-identified copies by rule {rule.name}, whose conditions "
                                     "are not true of this image")
        return firing

    def apply(self, rules: Sequence[Rule], edits: Edits) -> tuple[str, ...]:
        """Do what rules say, in order; return the names of those that did not skip themselves.

        Raises EditFailed, also where a rule was to de-identify and the copy is not de-identified in the end.
        """
        done = tuple(rule.name for rule in rules if edits.try_rule(partial(_do_all, rule, edits)))
        if not edits.is_deidentified and any(rule.deidentifies for rule in rules):
            raise EditFailed("a rule that de-identifies was left out")
        return done

    def explain(self, facts: Facts) -> list[tuple[Rule, bool, Trace]]:
        """Return of every rule whether it fires for this instance, and each test that it made; values included."""
        explained = []
        for rule in self.rules:
            trace: Trace = []
            held = rule.when.holds(facts, trace)
            explained.append((rule, rule.only.holds(facts, trace) and held, trace))
        return explained

    def sources(self) -> set[LookUp]:
        """Return every table and look-up that the rules name."""
        return {action.source for rule in self.rules for action in rule.actions if action.source is not None}

    def destinations(self) -> set[str]:
        """Return every destination that a rule sends to."""
        return {name for rule in self.rules for name in rule.send_to}


def _do_all(rule: Rule, edits: Edits) -> None:
    for action in rule.actions:
        action.apply(edits)


NO_RULES: Final = RuleSet()


# --- compiling -----------------------------------------------------------------------------------------------------

def compile_rules(
    texts: Sequence[RuleText], destinations: Collection[str], check_source: Callable[[LookUp], str],
) -> RuleSet:
    """Return the set that these texts say. Raises RulesInvalid with every mistake.

    `destinations`: the names that exist. `check_source` returns what is wrong with a table or look-up, "" if nothing.
    """
    problems: list[Problem] = []
    rules: list[Rule] = []
    names: dict[str, RuleText] = {}
    if len(texts) > MAX_RULES:
        problems.append(Problem("", "", f"there are more than {MAX_RULES} rules"))
    for text in texts[:MAX_RULES]:
        if text.name in names:
            problems.append(Problem(text.at("when"), f"[rule:{text.name}]", "stands a second time; the first is in "
                                    f"{names[text.name].origin or 'the same place'}"))
            continue
        names[text.name] = text
        compiler = _Compiler(text, destinations, check_source, problems)
        rule = compiler.rule()
        if rule is not None:
            rules.append(rule)
    if problems:
        raise RulesInvalid(problems)
    return RuleSet(tuple(rules), revision_of(texts))


def revision_of(texts: Sequence[RuleText]) -> str:
    """Return the name of a set of texts: equal for equal texts, "" for none."""
    if not texts:
        return ""
    whole = json.dumps([text.body() for text in texts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


class _Compiler:
    """One rule on its way; what is wrong is added to `problems`."""

    def __init__(
        self, text: RuleText, destinations: Collection[str], check_source: Callable[[LookUp], str],
        problems: list[Problem],
    ) -> None:
        self._text = text
        self._known = destinations
        self._check_source = check_source
        self._problems = problems

    def rule(self) -> Rule | None:
        """Return the rule, None if it is disabled; problems are noted."""
        for key in self._text.entries:
            if key not in KEYS:
                self._report(key, f"{key[:40]!r} is not something a rule has", 0, likely(key, KEYS))
        send_to, only_for = self._names("send_to"), self._names("for")
        rule = Rule(
            text=self._text, when=self._condition("when"), only=self._condition("only"), actions=self._actions(),
            destinations=frozenset(only_for or send_to) or None, send_to=send_to,
            hold=" ".join(self._entry("hold").split())[:_MAX_REASON], keep=self._flag("keep"), stop=self._flag("stop"),
        )
        self._check_whole(rule)
        return rule if self._flag("enabled", default=True) else None

    def _entry(self, key: str) -> str:
        return self._text.entries.get(key, "")

    def _report(self, key: str, message: str, position: int = 0, hint: str = "") -> None:
        name = f"[rule:{self._text.name}] {key}"
        self._problems.append(Problem(self._text.at(key, position), name, message, hint))

    def _condition(self, key: str) -> Condition:
        try:
            return parse_condition(self._entry(key))
        except SyntaxProblem as problem:
            self._report(key, str(problem), problem.position, problem.hint)
            return ALWAYS

    def _actions(self) -> tuple[Action, ...]:
        actions: list[Action] = []
        position = 0
        for line in self._entry("do").split("\n"):
            if line.strip():
                try:
                    actions.append(parse_action(line.strip()))
                except SyntaxProblem as problem:
                    self._report("do", str(problem), position, problem.hint)
            position += len(line) + 1
        if len(actions) > MAX_ACTIONS:
            self._report("do", f"has more than {MAX_ACTIONS} actions")
        for action in actions:
            if action.source is not None and (fault := self._check_source(action.source)):
                self._report("do", fault, max(0, self._entry("do").find(action.text)))
        return tuple(actions)

    def _names(self, key: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(self._entry(key).replace(",", " ").split()))
        for name in names:
            if name not in self._known:
                self._report(key, f"names {name[:40]}, which is no destination", 0, likely(name, self._known))
        return names

    def _flag(self, key: str, *, default: bool = False) -> bool:
        word = self._entry(key).strip().lower()
        if word and word not in _YES_NO:
            self._report(key, "is neither yes nor no")
        return _YES_NO.get(word, default)

    def _check_whole(self, rule: Rule) -> None:
        if not rule.actions and not rule.routes:
            self._report("do", "does nothing: it has neither do nor send_to, hold or keep")
        if rule.keep and (rule.send_to or rule.hold):
            self._report("keep", "cannot stand with send_to or hold")
        if rule.edits_for(PLATFORM):
            self._check_platform(rule)
        if rule.deidentifies:
            self._check_never_skipped(rule)
        if PLATFORM in rule.send_to and rule.only is not ALWAYS:
            self._report("only", "cannot pick instances for satusehat, whose ImagingStudy names them all",
                         hint="use skip_sop_classes")

    def _check_never_skipped(self, rule: Rule) -> None:
        for action in rule.actions:
            if action.may_skip:
                self._report("do", "else skip would leave the de-identification out as well",
                             max(0, self._entry("do").find(action.text)), hint="use else hold, or a rule of its own")

    def _check_platform(self, rule: Rule) -> None:
        for action in rule.actions:
            if action.remakes_identity or _ACCESSION in action.writes:
                position = max(0, self._entry("do").find(action.text))
                hint = "name other destinations in send_to or for; accession numbers are corrected by alias"
                self._report("do", f"{action.text.split()[0]}: SATUSEHAT knows the study by its UIDs and accession, "
                             "which must not change on the way there", position, hint)
