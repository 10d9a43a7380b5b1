"""What people look at: one HTML page, plots, sample grids."""
