"""Rules: what goes where and how it is changed on the way out, as a small language of its own.

Layer 1: pure functions on headers; who stores rule sets, reads bytes and looks things up elsewhere is above.
Inside, in this order, each importing only those before it: failures, values, paths, pattern, syntax, conditions,
edits, actions, confidentiality, deidentify, ruleset. Changes when rules can say something new.
"""

from internal.config import RuleText
from internal.rules.edits import EditFailed, Edits, Keys, LookUp
from internal.rules.facts import Facts
from internal.rules.failures import PatternTooSlow, RulesInvalid
from internal.rules.ruleset import NO_RULES, Routing, Rule, RuleSet, compile_rules

__all__ = [
    "NO_RULES", "EditFailed", "Edits", "Facts", "Keys", "LookUp", "PatternTooSlow", "Routing", "Rule", "RuleSet",
    "RuleText", "RulesInvalid", "compile_rules",
]  # fmt: skip
