"""Where runs start: this machine, a sweep, a Cloud TPU."""
