"""`python -m ditstack` is the command `ditstack`."""

from ditstack.cli.app import main

main()
