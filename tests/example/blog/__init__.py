"""A blog small enough to read, with one of everything that a deploy can break."""

VERSION = "1.0"
