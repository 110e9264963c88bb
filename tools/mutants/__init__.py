"""Breaks copies of the project on purpose, and wants to see tests fail: `make mutants`.

private_tree   a copy of the working tree, and a Python environment that runs the copy
breakages      named small breakages of the C parts and the daemon's steps: a table, its checks
broken_builds  applies one, builds what it changed, runs the tests that must go red
modules        the pure Python modules, and the tests that hold them
survivors      what the tests let live although it is argued to be no fault: a table, its checks
mutations      runs mutmut over the pure modules, tells which mutants lived
__main__       the command line
"""
