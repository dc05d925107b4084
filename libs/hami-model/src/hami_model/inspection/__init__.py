"""The checker: what is wrong in a cluster, by its nodes and pods alone.

One rule: it shares nothing with the books. Annotations are read and use is added up here once more, in the plainest
way, so that a mistake of the books cannot hide itself.
"""

from hami_model.inspection.cluster import Sight, inspect
from hami_model.inspection.findings import Finding, Rule, Severity
from hami_model.inspection.rules import RULES

__all__ = ["RULES", "Finding", "Rule", "Severity", "Sight", "inspect"]
