"""The testbed's one error, so that its command line can tell "this machine cannot do it" from a bug of ours."""


class TestbedError(Exception):
    """Something the testbed needs did not work; the text says what failed, why, and what to do about it."""

    __test__ = False  # pytest collects classes by this name
