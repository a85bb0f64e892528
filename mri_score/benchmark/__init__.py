"""Methods compared cell by cell, and the tables of a comparison."""
