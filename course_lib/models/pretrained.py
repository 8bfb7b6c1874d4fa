"""x"""

from pathlib import Path

CHECKPOINTS = Path(__file__).parent / "checkpoints"
