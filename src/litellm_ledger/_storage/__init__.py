"""Files: segments, live files and the directory, through one small file system.

Owns every system call of writing, the locks, and the safe opening of files.
Never decides what is written.
"""
