"""What people read of grades: a student's page, the class's page, columns for a gradebook."""
