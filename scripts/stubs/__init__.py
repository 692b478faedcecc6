"""Type stubs of vendor libraries."""
