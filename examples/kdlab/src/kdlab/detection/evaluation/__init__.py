"""Detections of a network, and their precision by the rules of COCO."""
