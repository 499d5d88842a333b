"""What the author of a backend or plugin implements, and the shared mechanisms that they build on."""
