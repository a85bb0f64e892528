"""The numbers of datasets that come with the package."""
