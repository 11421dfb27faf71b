"""One YAML for each model; to add a model is to add a file. `stella_mteb.models.config` says what each key means."""
