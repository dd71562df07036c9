"""Run directories: writes and reads their files, tables and figures."""
