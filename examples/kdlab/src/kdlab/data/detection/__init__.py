"""Images with boxes: COCO from its files and from TFDS, and scenes of real digits."""
