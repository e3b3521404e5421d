from collections.abc import Callable

from plugin_common.patching import replace_once


class Library:
    @staticmethod
    def work() -> list[str]:
        return ["original"]


def test_a_function_is_replaced_once_by_each_cure() -> None:
    def first(library: type[Library]) -> None:
        def make(work: Callable[[], list[str]]) -> Callable[[], list[str]]:
            return lambda: ["first", *work()]

        replace_once(library, "work", make)

    def second(library: type[Library]) -> None:
        def make(work: Callable[[], list[str]]) -> Callable[[], list[str]]:
            return lambda: ["second", *work()]

        replace_once(library, "work", make)

    for cure in (first, second, first, second):
        cure(Library)
    assert Library.work() == ["second", "first", "original"]
    assert Library.work.__wrapped__.__wrapped__() == ["original"]  # type: ignore[attr-defined]
