"""`python -m pillion.cli` is `pillion`."""

from pillion.cli import main

if __name__ == "__main__":
    main()
