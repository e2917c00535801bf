"""The grids that come with the harness; `shrinkbench-bert run NAME` finds them by name."""
