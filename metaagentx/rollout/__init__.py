"""Questions become designs, designs become runs, runs become trajectories."""
