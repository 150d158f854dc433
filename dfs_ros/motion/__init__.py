"""Motion of the camera within a sweep: from poses, and corrected by the images."""
