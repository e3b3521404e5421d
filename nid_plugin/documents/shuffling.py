"""Shuffle a stream in bounded memory."""

import random
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def shuffled(items: Iterable[T], buffer_size: int, seed: int) -> Iterator[T]:
    """Hold ``buffer_size`` items and give one of them at random whenever a further one comes; then the rest.

    The order depends on the items' order, the buffer's size and the seed alone.
    """
    random_numbers = random.Random(seed)
    buffer: list[T] = []
    for item in items:
        if len(buffer) < buffer_size:
            buffer.append(item)
            continue
        place = random_numbers.randrange(buffer_size)
        item, buffer[place] = buffer[place], item
        yield item
    random_numbers.shuffle(buffer)
    yield from buffer
