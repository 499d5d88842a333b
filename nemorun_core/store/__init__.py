"""The experiment's folder: its layout, definition, journal, requests and lock. Nothing read here is ever executed."""
