"""`python -m node` is `wetread`."""

from node.cli import main

if __name__ == "__main__":
    main()
