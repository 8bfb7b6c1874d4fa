"""Does every pin have a wheel, for each Python and each system that the course names?

    python tools/resolve.py            # a table; asks the package index and installs nothing

One `pip install --dry-run` for each, half a minute a piece: pip reads the wheels' names and their
metadata. (An index without metadata apart makes it download the wheels.) A pin without a wheel is
named and left out of the next try. What a wheel requires is not followed: the lock holds it.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SYSTEMS = {
    "Linux x86-64": [f"manylinux_2_{minor}_x86_64" for minor in range(5, 35)],
    "Linux Arm": [f"manylinux_2_{minor}_aarch64" for minor in range(17, 35)],
    "macOS Arm": ["macosx_14_0_arm64"],
    "Windows": ["win_amd64"],
}
# The old names of manylinux_2_5, _2_12 and _2_17.
SYSTEMS["Linux x86-64"] += ["manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64"]
SYSTEMS["Linux Arm"] += ["manylinux2014_aarch64"]


def without_wheel(pins: list[str], python: str, platforms: list[str]) -> list[str]:
    """The pins for which the index has no wheel.

    Raises:
        RuntimeError: pip failed for another reason; the message is pip's.
    """
    missing: list[str] = []
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--target=nowhere", f"--python-version={python}"]
    command += [f"--platform={platform}" for platform in platforms]
    while True:
        left = [pin for pin in pins if pin not in missing]
        done = subprocess.run([*command, *left], capture_output=True, text=True, encoding="utf-8")
        if done.returncode == 0:
            return missing
        found = re.search(r"No matching distribution found for (\S+)", done.stderr)
        if not found or found[1] not in left:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        missing.append(found[1])


def main() -> int:
    """Print the table; 1 if a pin lacks a wheel."""
    pins = (ROOT / "requirements.lock").read_text("utf-8").split()
    data = (ROOT / "data.lock").read_text("utf-8")
    pins += re.findall(r"^[\w.-]+==\S+", data, flags=re.M)
    print(f"{len(pins)} pins\n{'':<16}" + "".join(f"{python:<12}" for python in PYTHONS))
    lacking: dict[str, list[str]] = {}
    for system, platforms in SYSTEMS.items():
        print(f"{system:<16}", end="", flush=True)
        for python in PYTHONS:
            missing = without_wheel(pins, python, platforms)
            print(f"{f'{len(missing)} lack' if missing else 'all':<12}", end="", flush=True)
            for pin in missing:
                lacking.setdefault(pin, []).append(f"{system} {python}")
        print()
    for pin, where in lacking.items():
        print(f"no wheel of {pin} for {', '.join(where)}")
    return int(bool(lacking))


if __name__ == "__main__":
    sys.exit(main())
