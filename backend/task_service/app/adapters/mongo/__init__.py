"""Tasks in MongoDB, in the documents that `app.mapping` knows."""
