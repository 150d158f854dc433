"""Experiments on the method; each is one command and writes one Markdown file."""
