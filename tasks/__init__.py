"""One folder for each task: `task.yaml`, its data or where it comes from, a data card."""
