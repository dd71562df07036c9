"""Crops and flips, operations on pixels and policies that draw them, mixed images."""
