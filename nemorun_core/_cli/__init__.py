"""The command `nemorun`: grammar by click; every command imports what it needs when it runs."""
