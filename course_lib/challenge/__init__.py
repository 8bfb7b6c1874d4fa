"""The open challenge: anybody's file, measured by everybody in the same way."""
