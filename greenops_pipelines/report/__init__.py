"""What is shown to people: the scorecard of acceptance criteria, and reports. May read every domain."""
