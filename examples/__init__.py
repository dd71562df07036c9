"""Programs that use kdopt: not part of the installed package."""
