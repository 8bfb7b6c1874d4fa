"""Run a script in a process of its own, where `fake_accelerator` may add its device."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

# A process that imports PyTorch once and forks for each script; where none can fork, a new one.
FORKS = "forkserver" in multiprocessing.get_all_start_methods()
PROCESSES = multiprocessing.get_context("forkserver" if FORKS else "spawn")
if FORKS:
    PROCESSES.set_forkserver_preload(["course_lib.exercises", "torch._subclasses.fake_tensor"])


def run_on_accelerator(script: str) -> None:
    """Fail with the script's own error, if it fails. It may import from tests."""
    with ProcessPoolExecutor(1, mp_context=PROCESSES) as pool:
        pool.submit(exec, script, {}).result()
