import hashlib

import pytest

from nat_plugin.data.file_checks import Digest, Expected, checked, digest_of
from plugin_common.errors import UserError


def test_digest_is_that_of_hashlib(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 1_000_000)
    content = path.read_bytes()
    assert digest_of(path) == Digest(3_000_000, hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest())


@pytest.mark.parametrize(
    ("expected", "named"),
    [
        (Expected(), None),
        (Expected(3, "aa", "bb"), None),
        (Expected(4), "bytes 3, expected 4"),
        (Expected(sha256="ab"), "SHA-256 aa, expected ab"),
        (Expected(md5="x", size=1, origin="the list"), r"bytes 3, expected 1; MD5 bb, expected x \(the list\)"),
    ],
)
def test_problem_names_all_that_differs(expected, named):
    problem = expected.problem(Digest(3, "aa", "bb"))
    if named is None:
        assert problem is None
    else:
        assert problem is not None and problem.startswith(named.replace("\\", "").split(" (")[0])


def test_unreadable_file(tmp_path):
    with pytest.raises(UserError, match="none: cannot be read"):
        checked(tmp_path / "none", Expected())
