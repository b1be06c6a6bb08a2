"""What joins this library to another one: a module for each, which needs that one to be installed.

These modules use the public names of this package and nothing else, so each can be read as an example. The package
itself imports nothing of this folder.
"""
