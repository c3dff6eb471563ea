"""What everything else stands on: files, numbers, checks. Knows no tensor and no model."""
