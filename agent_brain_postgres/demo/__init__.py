"""The main job on real input: files in, three kinds of search out. See `cli/demo.py`."""
