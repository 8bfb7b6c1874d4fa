"""Other people's tools talk a great deal. Here they speak only when they fail."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings, logs and what C++ writes to the error stream are lost; exceptions are not.

    >>> with quiet():
    ...     warnings.warn("nobody sees this")
    """
    sys.stderr.flush()
    stream, disabled = os.dup(2), logging.root.manager.disable
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        logging.disable(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(stream, 2)
        os.close(stream)
        os.close(nowhere)
        logging.disable(disabled)
