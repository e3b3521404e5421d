"""Non-autoregressive (one-pass) translation from pretrained masked language models, as a fairseq plugin.

``fairseq-train --user-dir nat_plugin …`` imports this package after fairseq: then it registers itself. Imported without
fairseq it loads nothing heavy; programs that need fairseq's registries call :func:`register`.
"""

import sys


def register() -> None:
    """Mend what fairseq needs mended, then register the tasks, models, up-samplers and criterions. Idempotent."""
    from plugin_common import compat

    compat.apply()


if "fairseq" in sys.modules:
    register()
