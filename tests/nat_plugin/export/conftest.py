"""What several tests of exported models need."""

from tests.toy_export import exported

__all__ = ["exported"]
