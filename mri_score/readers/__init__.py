"""Files that hold scans, coil maps and images."""
