"""From a lesson's source to notebooks, and from a learner's notebook to a verdict."""

import sys

# A part of jsonschema that nbformat loads and notebooks do not need: 1.4 s at each start.
sys.modules.setdefault("rfc3987_syntax", None)
