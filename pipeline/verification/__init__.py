"""`facemint verify`: scores models on verification sets. `words.py` is the command, `command.py` does it, `table.py`
shows it, `fruits.py` puts a pipeline together from the bundled detector and a model."""
