"""Downloads: published data sets fetched, verified and stored."""
