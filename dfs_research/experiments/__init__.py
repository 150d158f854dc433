"""Experiments that show what the method does and why; each is one command and writes one Markdown file."""
