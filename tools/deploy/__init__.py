"""Puts the device package onto a board, over its serial port. See docs/board.md."""
