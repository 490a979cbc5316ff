"""The table that tells of a column chunk's pages, one a row: (pages, COLUMNS) int64.

Kinds, encodings and fields are those of Parquet's format
(https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift).
"""

DATA, INDEX, DICTIONARY, DATA_V2 = range(4)
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY = 0, 2, 3, 8

# What a header says, sizes in bytes.
KIND = 0
SIZE = 1  # stored, after the header
MADE = 2  # the same uncompressed
CRC = 3  # unsigned; NONE where there is none
VALUES = 4
ENCODING = 5
REPETITION = 6  # encoding of its levels; in a DATA_V2 page the bytes that they take
DEFINITION = 7
COMPRESSED = 8  # 0 or 1
HEADER = 9  # columns of what a header says
# Where the page lies.
START = 9  # of what follows the header, among the bytes that headers are read from
LEVELS = 10  # address of its levels and, in a DATA page, of what follows them
BODY = 11  # address of its values, uncompressed; in a DATA page of the levels before them
LENGTH = 12  # bytes from there on
# What is found in it.
OWNER = 13  # in which bytes its values lie, see below
AT = 14  # where they begin there
BYTES = 15
COLUMNS = 16

NONE = -1

# Owners: the bytes that are stored, room for what is unpacked, room for what a dictionary has, and
# the body of the page, if it was made by another.
OWNERS = range(4)
STORED, UNPACKED, LOOKED_UP, GIVEN = OWNERS

# Why a page is not read, by number.
LONG_LEVELS, RARE_LEVELS, UNEQUAL, NULLS, OTHER_NUMBER = range(1, 6)
NO_DICTIONARY, NO_INDICES, RARE, UNSOUND = range(6, 10)
REASONS = {
    LONG_LEVELS: "levels that are longer than their page",
    RARE_LEVELS: "levels in an encoding that is rare",
    UNEQUAL: "lists of several lengths, or none",
    NULLS: "nulls",
    OTHER_NUMBER: "a page of another number of values",
    NO_DICTIONARY: "no dictionary",
    NO_INDICES: "indices that are not in the dictionary",
    RARE: "an encoding that is rare",
    UNSOUND: "a page that cannot be decompressed",
}
