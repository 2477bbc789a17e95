"""`python -m pq.cli`: the command `pq`."""

from pq.cli import main

if __name__ == "__main__":
    main()
