"""What a route is scored by: teacher-forced probes, and probes that let the model write."""
