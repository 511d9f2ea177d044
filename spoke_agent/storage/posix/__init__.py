"""A plain directory tree as a storage node: served over S3 by versitygw as it lies, looked at through the file system."""
