"""What fires unattended: schedules for fixed times, sensors for the outside world, conditions for the graph."""
