"""`python -m eventflow`."""

from eventflow.cli.main import main

main()
