"""What pyproject.toml cannot say: the folder ``cli`` is ``dit_cli``, other packages are found."""

from setuptools import find_packages, setup

setup(packages=["dit_cli", *find_packages(include=["dit_tools", "dit_tools.*"])])
