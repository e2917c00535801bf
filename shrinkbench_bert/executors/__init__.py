"""Where the missing cells of a grid are run: in this process, in several, or on a Dask cluster."""
