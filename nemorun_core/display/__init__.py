"""What people see: status lines, logs and the live table. `_rich` alone imports rich."""
