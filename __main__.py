"""``python -m distinit`` runs the ``distinit`` command."""

from distinit.cli import main

if __name__ == "__main__":
    main()
