"""Whether a document is surely in another language than the one asked for."""

from collections.abc import Callable

from plugin_common.errors import UserError

_CHARACTERS = 2000  # of the document's middle: enough to be sure, and 500 documents a second


def other_language_test(code: str, certainty: float) -> Callable[[str], bool]:
    """A function that tells whether a text is in another language than ``code`` with probability ``certainty``.

    It goes by the middle 2,000 characters of the text and the probabilities of py3langid over its 97 languages.

    Raises:
        UserError: the library does not know the language.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if code not in identifier.labels:
        raise UserError(f"--language {code}: unknown; expected one of {', '.join(sorted(identifier.labels))}")

    def is_other(text: str) -> bool:
        start = max(0, (len(text) - _CHARACTERS) // 2)
        language, probability = identifier.classify(text[start : start + _CHARACTERS])
        return language != code and probability >= certainty

    return is_other
