"""Tables that people sort and search: of samples, classes, confusions, epochs."""
