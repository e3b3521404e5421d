import logging

import pytest

from plugin_common.quiet_logging import warnings_only


def test_notices_are_muted_within_the_block_alone(caplog):
    logger = logging.getLogger("a library.part")
    with caplog.at_level(logging.INFO):
        with pytest.raises(KeyError), warnings_only("a library"):
            logger.info("muted")
            logger.warning("kept")
            raise KeyError
        logger.info("heard again")
    assert [record.message for record in caplog.records] == ["kept", "heard again"]
