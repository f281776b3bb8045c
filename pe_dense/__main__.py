"""``python -m pe_dense`` is the console command ``pe-dense``."""

from pe_dense.cli import main

if __name__ == "__main__":
    main()
