"""Programs that use kdopt; not part of the wheel."""
