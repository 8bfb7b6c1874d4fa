"""Make the course's speech from pocketsphinx's source archive:

    python tools/librivox_speech.py pocketsphinx-5.1.1.tar.gz

Its test data hold five sentences of a LibriVox recording, and for each word when it begins and how
long it lasts, as a speech recognizer aligned them. The hash of the archive is ARCHIVE_SHA256.
"""

import hashlib
import json
import sys
import tarfile
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from course_lib.data.speech import RATE, mu_law

ARCHIVE_SHA256 = "675778b309a22dfc9b7d37f7621976bba491d2a5f8c59696bd77fd6d07271355"
FOLDER = "test/data/librivox/"
SPEECH = Path(__file__).parent.parent / "course_lib/data/sounds/speech.safetensors"


def sentences(archive: Path) -> list[Tensor]:
    """Each recording of the archive from its first word to its last: codes of 8 bits, (N,)."""
    found = []
    with tarfile.open(archive) as tar:
        for name in sorted(n for n in tar.getnames() if FOLDER in n and n.endswith(".wav")):
            with wave.open(tar.extractfile(name)) as sound:
                if (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) != (
                    RATE,
                    1,
                    2,
                ):
                    raise ValueError(f"{name} must be mono, 16 bits, {RATE} Hz")
                samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
            begin, end = spoken(json.load(tar.extractfile(name.removesuffix("wav") + "json"))["w"])
            found.append(mu_law(torch.from_numpy(samples[begin:end].astype("f4")) / 2**15))
    return found


def spoken(words: list[dict]) -> tuple[int, int]:
    """The sample with which the first word begins, and the one behind the last word.

    >>> times = [("<sil>", 0, 0.5), ("to", 0.5, 0.25), ("be", 0.75, 0.25), ("<sil>", 1, 0.5)]
    >>> spoken([{"t": word, "b": begin, "d": length} for word, begin, length in times])
    (8000, 16000)
    """
    said = [word for word in words if word["t"] != "<sil>"]
    return round(said[0]["b"] * RATE), round((said[-1]["b"] + said[-1]["d"]) * RATE)


def stored(sounds: Sequence[Tensor]) -> bytes:
    """The sentences' codes as a safetensors file: one after the other, and their lengths."""
    lengths = torch.tensor([len(sound) for sound in sounds], dtype=torch.int32)
    return save({"codes": torch.cat(list(sounds)), "lengths": lengths})


if __name__ == "__main__":
    archive = Path(sys.argv[1])
    if hashlib.sha256(archive.read_bytes()).hexdigest() != ARCHIVE_SHA256:
        print(f"{archive.name} is not the archive that the course was written with")
    SPEECH.write_bytes(stored(sentences(archive)))
    print(f"{SPEECH.name}: {SPEECH.stat().st_size / 1e3:.0f} kB")
