"""The engine: folds events into states, drives backends, in the foreground, detached or in this process."""
