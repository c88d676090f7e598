"""Of the whole suite."""

import gc


def pytest_collection_finish():
    """Every stage of a conversion collects garbage; what eleven thousand collected tests have made need not be looked through each time."""
    gc.collect()
    gc.freeze()
