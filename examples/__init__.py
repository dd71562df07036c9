<<<<<<< .merge_file_gEGUld
"""Programs that use kdopt; not part of the wheel."""
=======
"""Programs that use kdopt; not part of the installed package."""
>>>>>>> .merge_file_pgdu6i
