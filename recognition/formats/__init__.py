"""Formats: sets of labelled pictures on disk, as the field keeps them; a reader and a writer for each.

`open_set(path)` recognises which of them is there. Every reader takes its files for a stranger's: truncated,
mislabelled or hostile ones are a ValueError that names the file and the fault; no memory is taken on a header's word.
"""
