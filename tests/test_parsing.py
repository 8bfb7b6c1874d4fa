"""Many threads parse at once, and none of them fails for it."""

import gc
import inspect
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from course_lib.classroom.submissions.parsing import parse


@pytest.fixture
def other_threads_run_while_memory_is_tidied():
    """As they do where a package, such as Dask's, watches the collector."""
    before = gc.get_threshold()

    def let_others_run(*_):
        time.sleep(0)

    gc.callbacks.append(let_others_run)
    gc.set_threshold(50)
    yield
    gc.set_threshold(*before)
    gc.callbacks.remove(let_others_run)


def test_threads_may_parse_at_once(other_threads_run_while_memory_is_tidied):
    source = inspect.getsource(inspect)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(parse, source) for _ in range(24)]
    assert {type(future.exception()) for future in futures} == {type(None)}


def test_what_is_no_python_raises_and_the_next_is_parsed():
    with pytest.raises(SyntaxError):
        parse("1 +")
    assert parse("x").body
