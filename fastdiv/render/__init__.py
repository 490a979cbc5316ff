"""What people see: text on a terminal, and whatever else shows a Run."""
