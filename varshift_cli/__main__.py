"""``python -m varshift_cli`` is ``varshift``."""

from varshift_cli.cli import main

if __name__ == "__main__":
    main()
