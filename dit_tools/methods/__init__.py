"""Methods: one folder per category, one file per method; a file is a choice of the command line.

The contract of a category, with an example, is the module docstring and the public classes of its
``__init__.py``. Helper modules of a category start with an underscore and are used inside it only.
Categories never import each other; what they share is in ``dit_tools.core``.
"""
