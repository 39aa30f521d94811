"""`facemint evaluate`: a generator measured against the truth, on people that nobody was trained on.

`pictures.py` makes sets of pictures once and looks at them, `people.py` says who is photographed and how, `figures.py`
turns what was seen into figures, `command.py` puts them together from a config and writes the folder.
"""
