"""run_all.py: producers, consumers and pages as one system; read supervise first, guard last."""
