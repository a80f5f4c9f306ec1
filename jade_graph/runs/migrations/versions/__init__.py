"""One file a schema. They name tables as they were then, never `runs.tables`: that one changes, these do not."""
