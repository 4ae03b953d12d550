"""``python -m dit_cli``: the program ``dit``."""

from dit_cli import program

if __name__ == "__main__":
    program()
