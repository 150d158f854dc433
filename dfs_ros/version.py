"""The version of the package, as in package.xml, setup.py and CHANGELOG.rst."""

__version__ = "0.2.0"
