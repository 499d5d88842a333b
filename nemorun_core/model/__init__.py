"""Values only: tasks, executors, jobs, states, keys and records. No input or output, no clock."""
