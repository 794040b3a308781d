"""A base class for parts of the driver that Tune must not pickle."""


class Unpickled:
    """Pickles as an empty object.

    Tune pickles everything it is given for a later `Tuner.restore`. A sweep never calls it: a sweep
    continues from the ledger, and its driver holds files, threads and a console that cannot be
    pickled.
    """

    def __getstate__(self) -> dict[str, object]:
        return {}
