"""Small trained nets, each with one planted cause, and healthy ones: does scan name the cause?

``python -m tests.zoo`` trains them (minutes on one core; kept in the temporary folder) and prints
the confusion table.
"""
