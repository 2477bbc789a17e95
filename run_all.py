"""Starts producers, consumers and dashboards on one queue, and stops them: `python run_all.py --help`."""

import sys

from pq.system.supervise import main

if __name__ == "__main__":
    sys.exit(main())
