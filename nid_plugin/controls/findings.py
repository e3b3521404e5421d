"""What of a chat shows in a completion, by the audit's detectors."""

from nid_plugin.audit.detectors import DETECTORS, find_all
from nid_plugin.pairs import Pair

GROUPS = ("assistant", "instruction")
_DETECTORS = tuple(detector for detector in DETECTORS if detector.group in GROUPS)


def findings_of(pair: Pair) -> list[str]:
    """The detectors of these groups that find something in the completion, by name: refusals, talk about the task, …"""
    return list(find_all(pair.completion, "completion", _DETECTORS))
