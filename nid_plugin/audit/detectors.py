"""The detectors of instruction and conversation content, by name.

A detector is a pure function from a text to the places where it found something. It works by rules alone, on English
text; what each finds and misses was counted on hand-labelled texts (``accuracy.py``).
"""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from nid_plugin.audit import assistant_rules, conversation_rules, instruction_rules
from nid_plugin.audit.matching import Match, without_long_blanks

DETECTORS_VERSION = 2
"""Goes up when any detector may find something else than before; reports carry it."""

Side = Literal["prompt", "completion"]
SIDES: tuple[Side, ...] = ("prompt", "completion")
Group = Literal["assistant", "instruction", "address"]
GROUPS: dict[Group, str] = {
    "assistant": "what a chat assistant says, and what is said to it",
    "instruction": "requests for a text or a program",
    "address": "web prose that turns to its reader: how-to, advertising, questions, lists of steps",
}


@dataclass(frozen=True)
class Detector:
    """One kind of content.

    Attributes:
        name: for the command line and reports.
        group: ``assistant`` and ``instruction`` are what instruction data is made of; ``address`` is common on the web.
        description: what counts, and what does not.
        examples: texts in which it is found.
        counter_examples: texts close to these in which it is not.
        find: the rule.
        sides: where it looks.
    """

    name: str
    group: Group
    description: str
    examples: tuple[str, ...]
    counter_examples: tuple[str, ...]
    find: Callable[[str], list[Match]]
    sides: tuple[Side, ...] = SIDES


DETECTORS: tuple[Detector, ...] = (
    Detector(
        "role-marker",
        "assistant",
        "turns marked with the roles of a chat (both a user's and an assistant's), `### Instruction:` headings, tokens "
        "of chat templates; not named speakers of plays, interviews and chat logs",
        (
            "User: Is it open?\nAssistant: Until six.",
            "[INST] Name a river. [/INST]",
            "### Instruction:\nSort the list.",
        ),
        ("User: jsmith\nPassword: ***", "### Response codes", "HAMLET: I will."),
        conversation_rules.role_markers,
    ),
    Detector(
        "assistant-identity",
        "assistant",
        "the writer says that it is a program or a model, who made it, or where its knowledge ends",
        ("As an AI language model, I have no taste.", "My knowledge cutoff is 2021."),
        ("As an AI system it falls under the law.", "“As an AI, I do not dream,” said the robot."),
        assistant_rules.identity,
    ),
    Detector(
        "refusal",
        "assistant",
        "the writer declines to do what was asked, as assistants do; not a person who cannot come to dinner",
        ("I'm sorry, but I can't assist with that.", "I must decline to continue this passage."),
        ("I'm sorry, but I can't come on Friday.", "I can't help but smile."),
        assistant_rules.refusals,
        ("completion",),
    ),
    Detector(
        "task-talk",
        "assistant",
        "talk about the text that was given or about continuing it, instead of a continuation",
        ("Here is a continuation:", "The text you provided seems to be cut off.", "The article goes on to discuss …"),
        ("The talks will continue from where they left off.", "Continued on page 14."),
        assistant_rules.task_talk,
        ("completion",),
    ),
    Detector(
        "reply",
        "assistant",
        "reacts to the text before as to the message of a user: agrees, corrects, praises, thanks, is sorry for a "
        'confusion, answers "your question", presents a solution',
        ("Yes, that's correct. In Unix …", "You're right, there is a debate.", "I apologize for the confusion."),
        ("Yes and no, as so often.", "You asked me about dentists in May.", "“That's right,” he said."),
        assistant_rules.replies,
        ("completion",),
    ),
    Detector(
        "help-offer",
        "assistant",
        "phrases with which help is given or offered, in forums and letters too",
        ("Sure! Here's a list.", "I hope this helps!", "Let me know if you have any questions."),
        ("Of course, nobody believed him.", "Certainly the best of the lot."),
        conversation_rules.help_offers,
    ),
    Detector(
        "task-request",
        "instruction",
        "a request to write, rework or answer something: essays, summaries, translations, exercises",
        ("Summarize the article below.", "Can you give me five ideas for a party?"),
        ("Writing a summary took him a week.", "“Write to me,” he said."),
        instruction_rules.task_requests,
    ),
    Detector(
        "code-request",
        "instruction",
        "a request for a program, a function, a query, a fix",
        ("Write a function that sorts a list.", "I need a SQL query for this."),
        ("The function sorts a list.", "Writing a program that plays chess is hard."),
        instruction_rules.code_requests,
    ),
    Detector(
        "imperative-opening",
        "address",
        "the first sentence tells the reader to do something, after a list mark, a greeting or a clause at most",
        ("Preheat the oven to 350 °F.", "Before you start, turn off the water.", "Never mix the two."),
        ("List prices fell.", "Set in the 1920s, the film …", "“Write to me,” he said."),
        instruction_rules.imperative_opening,
    ),
    Detector(
        "step-list",
        "address",
        "three or more items or sentences in a row that tell the reader what to do: numbered, bulleted, first … then …",
        ("1. Open the lid.\n2. Remove the filter.\n3. Close the lid.",),
        ("1. Yosemite\n2. Zion\n3. Acadia",),
        instruction_rules.step_lists,
    ),
    Detector(
        "reader-request",
        "address",
        "asks the reader to do something beyond following the text: write, call, subscribe, buy, comment, share",
        ("Please contact us.", "Leave a comment below!", "Order now and save."),
        ("“Please sit down,” she said.", "He was hard to please."),
        instruction_rules.reader_requests,
    ),
    Detector(
        "question-answer",
        "address",
        "questions and answers marked as such: Q: … A: …",
        ("Q: Is it safe?\nA: It is.", "Question: When?\nAnswer: At noon."),
        ("A: 14.2\nB: 13.9", "Q1 revenue fell."),
        conversation_rules.questions_and_answers,
    ),
    Detector(
        "reader-question",
        "address",
        "a question put to the reader outside of quoted speech; not one that the writer asks himself",
        ("Have you ever been to Rome?", "Tired of weeds?", "What do you think?"),
        ("What was she to do?", "“Do you want tea?” she asked."),
        conversation_rules.reader_questions,
    ),
)
BY_NAME = {detector.name: detector for detector in DETECTORS}
STRICT = frozenset(detector.name for detector in DETECTORS if detector.group != "address")
"""The detectors of what instruction data is made of: all but those of web prose that turns to its reader."""


def is_strict(names: AbstractSet[str]) -> bool:
    """Whether any of the detectors of instruction data is among these."""
    return not STRICT.isdisjoint(names)


def find_all(text: str, side: Side, detectors: Iterable[Detector] = DETECTORS) -> dict[str, list[Match]]:
    """What the detectors that look at this side found in the text: name → places, only where there are any."""
    text = without_long_blanks(text)
    found = ((detector.name, detector.find(text)) for detector in detectors if side in detector.sides)
    return {name: matches for name, matches in found if matches}
