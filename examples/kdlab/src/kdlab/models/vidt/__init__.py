"""ViDT, a detector without anchors or suppression of duplicates."""

from kdlab.models.vidt.config import CONFIGS, VidtConfig
from kdlab.models.vidt.model import Vidt
from kdlab.models.vidt.outputs import Detections, NeckInput

__all__ = ["CONFIGS", "Detections", "NeckInput", "Vidt", "VidtConfig"]
