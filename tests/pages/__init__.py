"""Tests of the pages, which share a server and a browser."""
