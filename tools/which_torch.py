"""Before set-up, on Linux without an NVIDIA GPU: which PyTorch will pip take, and how large is it?

    .venv/bin/python tools/which_torch.py        # `make lab` does this before it installs

Says nothing elsewhere, or where PyTorch is installed. Needs nothing but pip.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Sizes of PyTorch 2.13.0 on Linux x86-64, measured.
CPU = "the CPU build: 0.2 GB to download, 0.7 GB on disk."
CUDA = f"""the CUDA build: 2.7 GB to download, 4.5 GB on disk.
No NVIDIA GPU is seen here. The CPU build is 0.2 GB to download, 0.7 GB on disk. To get it:
    PIP_EXTRA_INDEX_URL={CPU_INDEX} make lab"""


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU, for all one sees before PyTorch is there."""
    return os.path.exists("/dev/nvidiactl") or bool(shutil.which("nvidia-smi"))


def planned() -> dict[str, str]:
    """Package -> version of all that pip would install with the locked PyTorch; {} if it fails."""
    locked = Path(__file__).parent.parent / "requirements.lock"
    pin = next(line for line in locked.read_text("utf-8").split() if line.startswith("torch=="))
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report=-", pin]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        return {}
    packages = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return {package["name"]: package["version"] for package in packages}


def announcement(packages: dict[str, str]) -> str:
    """What to say about a plan.

    >>> announcement({"torch": "2.13.0+cpu", "sympy": "1.14.0"})
    'pip takes PyTorch 2.13.0+cpu, the CPU build: 0.2 GB to download, 0.7 GB on disk.'
    >>> print(announcement({"torch": "2.13.0", "nvidia-cublas": "13.1.1.3"}))
    pip takes PyTorch 2.13.0, the CUDA build: 2.7 GB to download, 4.5 GB on disk.
    No NVIDIA GPU is seen here. The CPU build is 0.2 GB to download, 0.7 GB on disk. To get it:
        PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make lab
    """
    is_cuda = any(name.startswith("nvidia-") for name in packages)
    return f"pip takes PyTorch {packages['torch']}, {CUDA if is_cuda else CPU}"


if __name__ == "__main__":
    if sys.platform == "linux" and not find_spec("torch") and not has_gpu():
        packages = planned()
        if "torch" in packages:
            print(announcement(packages), flush=True)
