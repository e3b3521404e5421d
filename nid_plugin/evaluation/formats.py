"""Choices of ``nid answer`` that its ``--help`` shows before anything heavy is imported."""

from typing import Literal

Precision = Literal["bf16", "fp32"]
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32")

CHAT = "chat"
PAIR_FORMATS = ("chat", "plain", "template")
