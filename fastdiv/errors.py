"""What goes wrong, in words for the person who can mend it."""


class FastdivError(Exception):
    """Anything that fastdiv refuses, with a message of one line that says what to do."""


class UsageError(FastdivError):
    """The call asks for what cannot be done: an option, a column, a package."""


class DataError(FastdivError):
    """The data is not what it claims to be: the message names file, row group, row, column."""
