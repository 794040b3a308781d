"""Parts of the driver that Tune must not try to save."""


class Unsaved:
    """Pickles as empty.

    Tune pickles all that it is given, for a later `Tuner.restore`. A sweep never restores one:
    it goes on from the ledger, and holds files, threads and a console that cannot be pickled.
    """

    def __getstate__(self) -> dict[str, object]:
        return {}
