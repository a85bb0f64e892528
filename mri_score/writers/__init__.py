"""Writers of results for viewers: NIfTI and DICOM. One file a format."""
