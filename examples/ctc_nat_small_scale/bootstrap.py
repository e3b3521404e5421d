"""Paired bootstrap tests, each made once: results are kept beside the tables, by the content that was compared."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nat_plugin.scoring import Comparison, plain_significance
from plugin_common.atomic_file import atomic_output
from plugin_common.progress import progress_bar

SAMPLES = 1000


class Bootstrap:
    """Compares systems; ``cache`` is the file that remembers, ``made`` and ``remembered`` count."""

    def __init__(self, cache: Path, samples: int = SAMPLES) -> None:
        self._cache = cache
        self._samples = samples
        self._known = _read(cache)
        self.made = self.remembered = 0

    def compare(
        self, reference_system: Sequence[str], system: Sequence[str], references: Sequence[str]
    ) -> dict[str, Comparison]:
        """Score → comparison of two systems' translations of the same sentences.

        Raises:
            UserError: different numbers of lines, or a cache that cannot be written.
        """
        key = self._key(reference_system, system, references)
        if key in self._known:
            self.remembered += 1
        else:
            found = plain_significance(reference_system, system, references, samples=self._samples)
            self._known[key] = [asdict(one) for one in found]
            self.made += 1
            with atomic_output(str(self._cache)) as stream:
                stream.write(json.dumps(self._known).encode())
        return {one["name"]: Comparison(**one) for one in self._known[key]}

    @contextlib.contextmanager
    def progress(self, total: int) -> Iterator[Callable[[], None]]:
        """A progress bar over so many comparisons; the function counts one."""
        with progress_bar(total=total, unit="test", description="paired bootstrap") as bar:
            yield lambda: bar.update(1)

    def _key(self, *texts: Sequence[str]) -> str:
        settings = [version("sacrebleu"), os.environ.get("SACREBLEU_SEED", "12345"), self._samples]
        content = json.dumps([settings, *map(list, texts)], ensure_ascii=False)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _read(cache: Path) -> dict[str, list[dict[str, Any]]]:
    """What is remembered; nothing if the file is not one of ours (it is made anew then)."""
    fields = set(Comparison.__dataclass_fields__)
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
        return {key: found for key, found in content.items() if found and all(set(one) == fields for one in found)}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
