"""An experiment: a teacher, students, and what is reported of them."""
