"""Tests of `cl_steps/data`."""
