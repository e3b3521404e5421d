"""The language of a text, told only where it is sure."""

from collections.abc import Callable

CERTAINTY = 0.99
"""Probability by py3langid from which a language counts as sure."""
LETTERS = 80
"""Texts with fewer letters are not judged."""
_CHARACTERS = 600  # of the text's start: three thousand texts a second; half of that is more doubtful, not faster


def sure_language() -> Callable[[str], str | None]:
    """A function from a text to its language (ISO 639-1), or None where that is not sure.

    It goes by the first 600 characters. Program text, tables and lists of names have no language: what is not mostly
    letters and blanks is not judged.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def language(text: str) -> str | None:
        start = text[:_CHARACTERS]
        letters = sum(map(str.isalpha, start))
        blanks = sum(map(str.isspace, start))
        if letters < LETTERS or letters + blanks < 0.85 * len(start):
            return None
        name, probability = identifier.classify(start)
        return str(name) if probability >= CERTAINTY else None

    return language
