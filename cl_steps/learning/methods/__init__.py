"""The methods of continual learning: one file each, and a catalogue that names them."""
