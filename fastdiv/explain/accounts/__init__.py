"""Accounts of a change that add up exactly, and how few samples carry it."""
