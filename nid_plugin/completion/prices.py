"""What tokens cost: prices by model, in a file that users can edit."""

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plugin_common.errors import UserError

SHIPPED = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens; ``batch`` is the share of it that a request of the Batch API costs."""

    input: float
    output: float
    batch: float = 1.0

    def of(self, prompt_tokens: int, completion_tokens: int, *, batch: bool = False) -> float:
        """US dollars for one request with these tokens."""
        dollars = (prompt_tokens * self.input + completion_tokens * self.output) / 1e6
        return dollars * self.batch if batch else dollars

    @property
    def free(self) -> bool:
        """Nothing is paid."""
        return self.input == 0 and self.output == 0


def read_prices(path: Path = SHIPPED) -> dict[str, Price]:
    """Prices by model from a TOML file (see ``prices.toml`` beside this module for its form).

    Raises:
        UserError: the file cannot be read or an entry is not of that form.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: the prices cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the prices are no valid TOML ({error}); {SHIPPED} shows the form") from error
    return {model: _price(entry, f'{path}, ["{model}"]') for model, entry in table.items()}


def _price(entry: Any, where: str) -> Price:
    form = f"`input`, `output` (dollars for a million tokens) and perhaps `batch` (0 to 1) are expected; see {SHIPPED}"
    if not isinstance(entry, dict) or not {"input", "output"} <= set(entry) <= {"input", "output", "batch"}:
        raise UserError(f"{where}: {form}")
    numbers = {name: value for name, value in entry.items() if isinstance(value, int | float) and 0 <= value < math.inf}
    if len(numbers) < len(entry) or numbers.get("batch", 0) > 1 or any(isinstance(v, bool) for v in entry.values()):
        raise UserError(f"{where}: {form}, found {entry}")
    return Price(**numbers)


def price_of(model: str, prices: dict[str, Price]) -> Price | None:
    """The price of a model, or of the model that it is a dated version of; None where there is none."""
    return prices.get(model) or prices.get(re.sub(r"-\d{4}-\d{2}-\d{2}$", "", model))
