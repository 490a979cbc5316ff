"""Where files lie and how their bytes are had: mapped on this machine, fetched from others."""
