"""The host side. One command: python -m tools."""
