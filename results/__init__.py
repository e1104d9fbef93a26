"""Tables from run folders: collect the measurements, average over seeds, compare with training from scratch."""
