"""What the program's file is read back for."""
