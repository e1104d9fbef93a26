"""Small data sets as they are shipped, to image folders: `python -m benchmarks prepare NAME SOURCE DIR`.

archives.py reads what people have (tar, zip, a folder), one file per family of formats says which picture goes where,
catalogue.py what there should be, writer.py writes it so that it can be interrupted, command.py puts them together.
"""
